#!/usr/bin/env python3
"""Prints the expectations of tests/model/checkpoint/block_formats_test.cc, computed by the gguf package (needs gguf, numpy).

Blocks hold bytes of a linear congruential generator, the same as in the test; the bytes with the exponent of a scale
have its top bit cleared, so that no value is infinite. Printed per type: first element, last element, SHA-256 of all floats.
The package has no dequantizer of Q1_0 and Q2_0: theirs are written here after ggml's C (ggml-quants.c).
"""
import hashlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, dequantize

BLOCKS = 64
# Where a block has bytes with the exponent of a scale.
EXPONENTS = {"Q8_0": [1], "Q4_0": [1], "Q4_1": [1, 3], "Q5_0": [1], "Q5_1": [1, 3], "Q2_K": [81, 83], "Q3_K": [109],
             "Q4_K": [1, 3], "Q5_K": [1, 3], "Q6_K": [209], "IQ1_S": [1], "IQ1_M": [55], "IQ2_XXS": [1], "IQ2_XS": [1],
             "IQ2_S": [1], "IQ3_XXS": [1], "IQ3_S": [1], "IQ4_NL": [1], "IQ4_XS": [1], "TQ1_0": [53], "TQ2_0": [65],
             "MXFP4": [0], "NVFP4": []}
BY_HAND = {"Q1_0": (18, 1, lambda codes: 2 * codes - 1), "Q2_0": (18, 2, lambda codes: codes - 1)}


def random_blocks(size, exponents):
    state, out = size, bytearray()
    for _ in range(BLOCKS * size):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state >> 24)
    for block in range(BLOCKS):
        for exponent in exponents:
            out[block * size + exponent] &= 0xBF
    return np.frombuffer(bytes(out), dtype=np.uint8).reshape(BLOCKS, size)


def show(name, exponents, values):
    values = values.astype(np.float32).ravel()
    assert np.isfinite(values).all()
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    first, last = (float(v).hex() for v in (values[0], values[-1]))
    print(f'{{DType::{name.lower()}, {{{", ".join(map(str, exponents))}}}, {first}F, {last}F,\n "{digest}"}},')


for name, exponents in EXPONENTS.items():
    kind = T[name]
    show(name, exponents, dequantize(random_blocks(GGML_QUANT_SIZES[kind][1], exponents), kind))

for name, (size, bits, value) in BY_HAND.items():
    blocks = random_blocks(size, [1])
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    codes = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").reshape(BLOCKS, -1, bits)
    show(name, [1], value((codes << np.arange(bits)).sum(axis=2).astype(np.float32)) * scales)

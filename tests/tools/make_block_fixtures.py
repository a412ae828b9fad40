#!/usr/bin/env python3
"""Prints the expectations of tests/model/block_formats_test.cc, computed by the gguf package (needs gguf, numpy).

Blocks hold bytes of a linear congruential generator, the same as in the test; their F16 fields have the top exponent
bit cleared, so that no value is infinite. Printed per type: first element, last element, SHA-256 of all floats.
"""
import hashlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, dequantize

BLOCKS = 64
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def random_blocks(size, halves):
    state, out = size, bytearray()
    for _ in range(BLOCKS * size):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state >> 24)
    for block in range(BLOCKS):
        for half in halves:
            out[block * size + half + 1] &= 0xBF
    return np.frombuffer(bytes(out), dtype=np.uint8).reshape(BLOCKS, size)


for name, halves in HALVES.items():
    kind = T[name]
    blocks = random_blocks(GGML_QUANT_SIZES[kind][1], halves)
    values = dequantize(blocks, kind).astype(np.float32).ravel()
    assert np.isfinite(values).all()
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    first, last = (float(v).hex() for v in (values[0], values[-1]))
    print(f'{{DType::{name.lower()}, {{{", ".join(map(str, halves))}}}, {first}F, {last}F,\n "{digest}"}},')

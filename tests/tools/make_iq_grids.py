#!/usr/bin/env python3
"""Prints the packed code books of model/checkpoint/iq_grids.cc, taken from the gguf package (needs gguf, numpy).

usage: make_iq_grids.py  (its output stands between the two lines "The numbers" of that file)
"""
import numpy as np
from gguf.quants import IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS

PER_LINE = 13

for kind in (IQ2_XXS, IQ2_XS, IQ2_S, IQ1_S, IQ3_XXS, IQ3_S):
    kind.init_grid()
    entries, length = kind.grid_shape
    bits = 16 // length
    values = list(kind.grid_map)
    codes = np.array([[values.index(v) for v in row] for row in kind.grid.reshape(entries, length)])
    words = (codes << (bits * np.arange(length))).sum(axis=1)
    name = "".join(part.capitalize() for part in kind.qtype.name.split("_"))
    print(f"constexpr std::array<uint16_t, {entries}> kPacked{name}{{")
    for i in range(0, entries, PER_LINE):
        print("    " + " ".join(f"0x{word:04x}," for word in words[i:i + PER_LINE]))
    print("};")

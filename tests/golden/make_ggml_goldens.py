#!/usr/bin/env python3
"""Makes tests/golden/ggml_blocks.json: what the `gguf` package makes of random blocks of each type.

    pip install numpy gguf==0.19.0
    python tests/golden/make_ggml_goldens.py

The blocks are random in every bit, scales too, and the float16 scales (at `halves`) of every eighth one
are SPECIAL in turn; a test makes the same ones (SplitMix64 from the type's name, as
make_tiny.random_integers). Per type: the second block's elements, as float32 bits, and the 64-bit FNV-1a hash of the bits of all
NUM_BLOCKS of them, each NaN counted as 0x7fc00000.
"""
import json
import pathlib
import struct
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fixtures"))
import make_gguf  # noqa: E402
import make_tiny  # noqa: E402

NUM_BLOCKS = 1000
# infinities, zeros, the smallest and greatest subnormal, the smallest and greatest normal, NaN
SPECIAL = [0x7c00, 0xfc00, 0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfe01]
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
         "IQ4_XS", "MXFP4"]


def random_bytes(name, count):
    return bytes(k & 255 for k in make_tiny.random_integers(name, 0, count))


def fnv(data):
    state = 0xcbf29ce484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001b3 & make_tiny.MASK
    return state


def golden(name):
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.frombuffer(random_bytes(name, NUM_BLOCKS * size), np.uint8).reshape(NUM_BLOCKS, size)
    blocks = blocks.copy()
    halves = sorted(make_gguf.TYPES[name][3])
    for i in range(0, NUM_BLOCKS, 8):
        for offset in halves:
            blocks[i, offset:offset + 2] = np.frombuffer(
                struct.pack("<H", SPECIAL[(i // 8 + offset) % len(SPECIAL)]), np.uint8)
    with np.errstate(all="ignore"):
        values = gguf.dequantize(blocks, kind)
    assert values.dtype == np.float32 and values.shape == (NUM_BLOCKS, elements)
    bits = values.view(np.uint32).copy()
    bits[np.isnan(values)] = 0x7fc00000
    return {"block_bytes": size, "block_elements": elements,
            "halves": halves, "second": [int(b) for b in bits[1]], "hash": f"{fnv(bits.tobytes()):016x}",
            "infinities": int(np.isinf(values).sum()), "nans": int(np.isnan(values).sum())}


def main():
    result = {"command": "python tests/golden/make_ggml_goldens.py", "num_blocks": NUM_BLOCKS,
              "special": SPECIAL,
              "types": {name.lower(): golden(name) for name in TYPES}}
    text = json.dumps(result, separators=(",", ":")).replace('},"', '},\n"')
    (HERE / "ggml_blocks.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Writes blocks.json: blocks of GGUF files and what they stand for, by the `gguf` package.

    pip install gguf==0.19.0
    python blocks.py > blocks.json
"""

import json

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

rng = np.random.default_rng(5)
HALVES = {T.Q4_1: [0, 2], T.Q5_1: [0, 2], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2],
          T.Q6_K: [208], T.Q4_0: [0], T.Q5_0: [0], T.IQ4_NL: [0], T.MXFP4: []}
cases = []
for kind, halves in HALVES.items():
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = []
    for scale in (1.0, 1e-3):
        # Random bytes are every number; the scales have to be finite.
        block = rng.integers(0, 256, size, dtype=np.uint8)
        for at in halves:
            block[at:at + 2] = np.array([rng.normal() * scale], dtype=np.float16).view(np.uint8)
        if kind == T.MXFP4:
            block[0] = 120 if scale == 1.0 else 1
        blocks.append(block)
    if elements == 32:
        if kind != T.IQ4_NL:
            blocks.append(quantize(rng.normal(size=(1, 32)).astype(np.float32), kind)[0])
    for block in blocks:
        values = dequantize(block.reshape(1, -1), kind)[0].astype(np.float32)
        assert values.shape == (elements,)
        cases.append({"kind": kind.name, "code": int(kind), "block": block.tobytes().hex(),
                      "values": ["%08x" % bits for bits in values.view(np.uint32)]})
print('{"about": "Blocks of GGUF files and the binary32 bits of the values they stand for, both in hex, by the gguf package 0.19.",')
print('"cases": [')
print(",\n".join(json.dumps(c) for c in cases))
print("]}")

#!/usr/bin/env python3
"""Makes a model that ends the process that loads it: ONNX Runtime (up to 1.32) folds a division
whose result does not fit, which the processor answers with SIGFPE. Apart from the other models, so
that no test loads it by accident. Needs the packages of ../requirements.txt."""

from pathlib import Path

import onnx
from onnx import parser

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
crashing (int32[batch,1] x) => (int32[batch,1] y)
<int32[1] lowest = {-2147483648}, int32[1] minus = {-1}>
{ quotient = Div(lowest, minus)
  y = Add(x, quotient) }"""

made = parser.parse_model(TEXT)
onnx.checker.check_model(made)
onnx.save(made, Path(__file__).parent / "1" / "model.onnx")

"""Products with integer weights in ONNX Runtime: which files have them, and how exact they are."""

from __future__ import annotations

from pathlib import Path

import onnx

_OPERATOR = "MatMulNBits"
_LEVEL = "accuracy_level"


def multiplies_integers(path: Path) -> bool:
    """Whether a file (its graph, without the weights) has products with integer weights."""
    return _OPERATOR.encode() in path.read_bytes()


def with_float_activations(path: Path) -> bytes:
    """The graph of a file with activations left in float32, where it rounds them to int8.

    Slower, and without the error of that rounding: what the file stores is then all that
    differs from the source model.
    """
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == _OPERATOR and attribute.name == _LEVEL:
                attribute.i = 0
    content: bytes = model.SerializeToString()
    return content

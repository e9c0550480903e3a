"""What range every activation takes on a text, the model's own cache filling as it reads.

onnxruntime's calibrators feed a graph inputs that were made before; here each call's cache is
what the calls before gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onekv.export.targets import Progress
from onekv.export.targets.onnx.encodings import Range, measured
from onekv.runtime.onnx_rounding import session_of
from onekv.runtime.onnx_static import StaticSession

WINDOW = 512
"""Most tokens that are read before the cache is emptied."""

TOKENS = 4096
"""Tokens of a calibration text that are read."""

_PREFIX = "range."


def measure_ranges(
    path: Path, context: int, tokens: Sequence[int], progress: Progress
) -> dict[str, Range]:
    """Least and largest of every value of `encodings.measured`, over the first TOKENS tokens.

    `path` is the graph that takes several tokens a call, its activations still floats.
    """
    model = ir.load(path)
    _watch(model.graph)
    session = session_of(ir.to_proto(model), path.parent)
    (new,) = {entry.shape[1] for entry in session.get_inputs() if entry.name == "input_ids"}
    found: dict[str, Range] = {}
    static = StaticSession({new: session}, context, lambda outputs: _widen(found, outputs))
    window = max(new, min(WINDOW, context) // new * new)
    whole = min(len(tokens), TOKENS) // new * new
    for start in range(0, whole, window):
        static.reset()
        static.step(tokens[start : min(start + window, whole)])
        progress(min(start + window, whole), whole)
    return found


def _watch(graph: ir.Graph) -> None:
    """Give least and largest of each measured value as outputs."""
    tape = ir.tape.Tape()
    for name, value in measured(graph).items():
        for operator in ("ReduceMin", "ReduceMax"):
            result = tape.op(operator, [value], {"keepdims": 0})
            result.name = f"{_PREFIX}{operator}.{name}"
            result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(())
            graph.outputs.append(result)
    graph.extend(tape.nodes)


def _widen(found: dict[str, Range], outputs: Mapping[str, NDArray[np.generic]]) -> None:
    prefix = f"{_PREFIX}ReduceMin."
    for name, low in outputs.items():
        if name.startswith(prefix):
            key = name.removeprefix(prefix)
            new = float(low), float(outputs[f"{_PREFIX}ReduceMax.{key}"])
            old = found.get(key, new)
            found[key] = min(old[0], new[0]), max(old[1], new[1])

"""Rounded activations in ONNX files, and how to leave them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from onekv.runtime.onnx_settings import find_weights, lean_settings


def float_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph that quantises no activation; its weights stay what they are.

    What the file stores is then all that differs from the source model. Inputs and outputs that
    were integers become floats.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    floats = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    constants = {tensor.name for tensor in graph.initializer}
    for entry in (*graph.input, *graph.output):
        if entry.type.tensor_type.elem_type == onnx.TensorProto.INT16:
            entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            renamed[node.output[0]] = floats.get(node.input[0], node.input[0])
        elif node.op_type != "QuantizeLinear":
            kept.append(node)
    for node in kept:
        node.input[:] = [_followed(name, renamed) for name in node.input]
    for entry in graph.output:
        source = floats.get(entry.name) or renamed.get(entry.name)
        if source is not None:
            kept.append(onnx.helper.make_node("Identity", [source], [entry.name]))
    del graph.node[:]
    graph.node.extend(kept)
    return copy


def row_encodings(model: onnx.ModelProto) -> dict[str, tuple[bytes, ...]]:
    """Scale and zero of every cache, by its name without `past.` or `new.`.

    Raises:
        ValueError: new rows have another encoding than the cache that they are put into.
    """
    stored = {tensor.name: tensor.raw_data for tensor in model.graph.initializer}
    found: dict[str, tuple[bytes, ...]] = {}
    for node in model.graph.node:
        place = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        stem, _, name = place.partition(".")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and stem in ("past", "new"):
            encoding = tuple(stored[parameter] for parameter in node.input[1:])
            if found.setdefault(name, encoding) != encoding:
                raise ValueError(f"new rows of {name} have another encoding than their cache")
    return found


def session_of(model: onnx.ModelProto, folder: Path) -> ort.InferenceSession:
    """A session that computes a quantised graph node by node, weights unfolded as it loads.

    `folder` is where its weights lie.
    """
    settings = lean_settings()
    # Fused products would round otherwise than the graph says.
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    find_weights(settings, folder)
    content: Any = model.SerializeToString()
    return ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _followed(name: str, renamed: dict[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name

"""Activations of 16 bits: quantised and dequantised between all operators of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onekv.export.targets.onnx.encodings import Encoding, Groups, Range, name_of, own_name
from onekv.export.targets.onnx.integer_rows import constant
from onekv.export.targets.onnx.static import LOGITS


def round_activations(model: ir.Model, exact: frozenset[str], ranges: Mapping[str, Range]) -> None:
    """Quantise and dequantise every value but the `exact` ones; rows come and go as integers.

    `ranges` are those of `encodings.measured`, by its names.
    """
    graph, groups = model.graph, Groups(model.graph, exact)
    values = [(value, groups.group(value)) for value in groups.values()]
    encodings = groups.encodings(ranges)
    parameters = {group: _parameters(graph, group, found) for group, found in encodings.items()}
    for value, group in values:
        steps = [name for name in (own_name(value), group) if name in encodings]
        _round(graph, value, [(encodings[name].type, parameters[name]) for name in steps])


def _parameters(graph: ir.Graph, group: str, found: Encoding) -> tuple[ir.Value, ir.Value]:
    zero = np.int16(found.zero) if found.signed else np.uint16(found.zero)
    scale = constant(graph, f"{group}.encoding_scale", np.float32(found.scale))
    return scale, constant(graph, f"{group}.encoding_zero", zero)


def _round(
    graph: ir.Graph,
    value: ir.Value,
    steps: Sequence[tuple[ir.DataType, tuple[ir.Value, ir.Value]]],
) -> None:
    """Put one pair of nodes after another behind a value; its uses take the last one's result."""
    uses, is_input = list(value.uses()), value in graph.inputs
    tape, floats = ir.tape.Tape(), value
    for number, (kind, parameters) in enumerate(steps):
        integers = value
        if not is_input:
            integers = tape.op("QuantizeLinear", [floats, *parameters])
            _describe(integers, f"{value.name}.integers.{number}", kind, value)
        floats = tape.op("DequantizeLinear", [integers, *parameters])
        _describe(floats, f"{value.name}.rounded.{number}", ir.DataType.FLOAT, value)
    for node, index in uses:
        node.replace_input_with(index, floats)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], tape.nodes)
    else:
        graph.insert_after(producer, tape.nodes)
    if is_input:
        value.type = ir.TensorType(steps[-1][0])
    for index, output in enumerate(graph.outputs):
        if output is value:
            name = name_of(value)
            graph.outputs[index] = floats if name == LOGITS else integers
            value.name, graph.outputs[index].name = f"{name}.exact", name


def _describe(value: ir.Value, name: str, kind: ir.DataType, like: ir.Value) -> None:
    value.name, value.shape, value.type = name, like.shape, ir.TensorType(kind)

"""Which values of a graph share a 16-bit encoding, and what it is.

An NPU moves numbers without looking at them: what goes into a Reshape or a Concat and what comes
out has one scale. So values are grouped over such nodes, and a group gets a scale and a zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onekv.export.targets.onnx.static import HIDDEN

Range = tuple[float, float]

_MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze", "Where"}
)
# Hidden scores lie so far below all others that exp() of the difference is lost in a sum.
_HIDDEN_BELOW = 20.0
# Text that was not calibrated on goes a little beyond.
_MARGIN = 0.1

_UNSIGNED, _SIGNED = 65_535, 32_767


@dataclass(frozen=True)
class Encoding:
    """value = (integer - zero) * scale; the integers are int16 when `signed`, else uint16.

    A signed encoding is symmetric, its zero 0.
    """

    scale: float
    zero: int
    signed: bool

    @property
    def type(self) -> ir.DataType:
        """The type of the integers."""
        return ir.DataType.INT16 if self.signed else ir.DataType.UINT16


def encoding(low: float, high: float, signed: bool) -> Encoding:
    """The finest encoding in which 0 is exact and [low, high] is held."""
    low, high = min(low, 0.0), max(high, 0.0)
    if signed:
        return Encoding(_scale(max(-low, high), _SIGNED), 0, True)
    scale = _scale(high - low, _UNSIGNED)
    return Encoding(scale, min(_UNSIGNED, round(-low / scale)), False)


def _scale(width: float, steps: int) -> float:
    """A float32 that is not 0, whatever the range."""
    return max(float(np.float32(width / steps)), float(np.finfo(np.float32).tiny))


def measured(graph: ir.Graph) -> dict[str, ir.Value]:
    """The values whose range is to be measured, by names that all traces of a model share.

    Those are the floats that a node computes; a name is the node's operator and its number. What
    only moves numbers may differ between traces for different lengths.
    """
    counts: dict[str, int] = {}
    found = {}
    for node in graph:
        if node.op_type not in _MOVES and is_float(node.outputs[0]):
            number = counts.get(node.op_type, 0)
            counts[node.op_type] = number + 1
            found[f"{node.op_type}.{number}"] = node.outputs[0]
    return found


def is_float(value: ir.Value) -> bool:
    """Whether a value takes part in the arithmetic that is rounded."""
    return value.dtype is ir.DataType.FLOAT


class Groups:
    """Values that have one encoding, by union over the nodes that only move numbers."""

    def __init__(self, graph: ir.Graph, skipped: frozenset[str]) -> None:
        """`skipped`: names of values that are not rounded, weights in integers above all."""
        self.graph, self.skipped = graph, skipped
        self.members: dict[str, list[ir.Value]] = {}
        self._parent: dict[str, str] = {}
        for node in graph:
            for value in self._moved(node):
                self._parent[self._root(name_of(value))] = self._root(name_of(node.outputs[0]))
        for value in self.values():
            self.members.setdefault(self._root(name_of(value)), []).append(value)

    def values(self) -> Iterator[ir.Value]:
        """All values that are rounded, each once: inputs, constants, then results in order."""
        for value in (*self.graph.inputs, *self.graph.initializers.values()):
            if self._rounded(value) and value.uses():
                yield value
        for node in self.graph:
            yield from (value for value in node.outputs if self._rounded(value))

    def group(self, value: ir.Value) -> str:
        """The name of a value's group."""
        return self._root(name_of(value))

    def encodings(self, ranges: Mapping[str, Range]) -> dict[str, Encoding]:
        """Every group's encoding, from the ranges of `measured` values.

        A product's result in a signed group has one of its own besides, under its own name: NPUs
        give products of integer weights unsigned.
        """
        names = {name_of(value): name for name, value in measured(self.graph).items()}
        signed = {self.group(value) for value in self._signed()}
        found = {}
        for group, members in self.members.items():
            found[group] = encoding(*self._range(members, ranges, names), group in signed)
            for value in members if group in signed else ():
                if _operator(value) == "MatMul":
                    found[own_name(value)] = encoding(*self._range([value], ranges, names), False)
        return found

    def _rounded(self, value: ir.Value) -> bool:
        return is_float(value) and name_of(value) not in self.skipped

    def _moved(self, node: ir.Node) -> Iterator[ir.Value]:
        if node.op_type in _MOVES and self._rounded(node.outputs[0]):
            yield from (v for v in node.inputs if v is not None and self._rounded(v))

    def _signed(self) -> Iterator[ir.Value]:
        """Rows, and what stands second in a product: an NPU narrows unsigned 16 bits to 8 there."""
        yield from (value for value in self.graph.inputs if self._rounded(value))
        for node in self.graph:
            second = node.inputs[1] if node.op_type == "MatMul" else None
            if second is not None and self._rounded(second):
                yield second

    def _range(
        self, members: list[ir.Value], ranges: Mapping[str, Range], names: Mapping[str, str]
    ) -> Range:
        found = [ranges[names[name_of(value)]] for value in members if name_of(value) in names]
        low = min((low for low, _ in found), default=0.0)
        high = max((high for _, high in found), default=0.0)
        low, high = low * (1 + _MARGIN), high * (1 + _MARGIN)
        for value in members:
            if value.const_value is not None:
                numbers = value.const_value.numpy()
                if numbers.size == 1 and numbers == HIDDEN:
                    low -= _HIDDEN_BELOW
                else:
                    low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        if any(_operator(value) == "Softmax" for value in members):
            return 0.0, 1.0
        return low, high

    def _root(self, name: str) -> str:
        while (parent := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(parent, parent)
            name = parent
        return name


def own_name(value: ir.Value) -> str:
    """The name of a value's own encoding beside its group's."""
    return f"{value.name}.own"


def name_of(value: ir.Value) -> str:
    """A value's name, which every value of a traced graph has."""
    assert value.name is not None
    return value.name


def _operator(value: ir.Value) -> str:
    node = value.producer()
    return "" if node is None else node.op_type

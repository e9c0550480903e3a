"""Integer weights with a scale per row as DequantizeLinear nodes, the form that NPUs multiply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onekv.export.targets.onnx.encodings import name_of
from onekv.export.targets.onnx.integers import SharedData
from onekv.export.targets.onnx.trace import PREFIX
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight

Array = NDArray[np.generic]

_TYPES = {Number.INT8: np.dtype(np.int8), Number.INT4: np.dtype(ml_dtypes.int4)}


@dataclass
class Attached:
    """`exact`: names of values that are not to be rounded, for they hold or look up integers.

    `shared`: initializers that are still to be added to the saved file.
    """

    exact: set[str] = field(default_factory=set)
    shared: list[SharedData] = field(default_factory=list)


def attach_integer_rows(model: ir.Model, quantised: Mapping[str, QuantisedWeight]) -> Attached:
    """Put integers and their scales where a graph names rounded weights."""
    attached = Attached()
    for value in list(model.graph.initializers.values()):
        weight = quantised.get(name_of(value).removeprefix(PREFIX))
        if weight is not None:
            _Matrix(model.graph, value, weight, attached).exchange()
    return attached


def constant(graph: ir.Graph, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
    """An initializer, registered."""
    tensor = ir.tensor(np.asarray(array), name=name)
    shape = ir.Shape(array.shape)
    value = ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


class _Matrix:
    """One rounded weight [rows, columns] on its way into a graph."""

    def __init__(
        self, graph: ir.Graph, value: ir.Value, weight: QuantisedWeight, attached: Attached
    ) -> None:
        self.graph, self.name, self.attached = graph, name_of(value), attached
        self.weight, self.type = weight, _TYPES[weight.number]
        self.uses = [use.node for use in value.uses()]
        del graph.initializers[self.name]
        self.scales = constant(graph, f"{self.name}.scales", weight.scales.squeeze(1).numpy())
        self.attached.exact.add(name_of(self.scales))

    def exchange(self) -> None:
        """Multiply by dequantised integers, and look rows of integers up."""
        integers = self._integers()
        look_ups = [node for node in self.uses if node.op_type == "Gather"]
        products = [node for node in self.uses if node.op_type != "Gather"]
        if products:
            self._multiply(products, integers)
        for node in look_ups:
            self._look_up(node, self._again(integers) if products else integers)

    def _multiply(self, nodes: Sequence[ir.Node], integers: ir.Value) -> None:
        zeros = self._stored("zeros", (len(self.weight.scales),), self._zeros)
        matrix = self._nodes(
            ("DequantizeLinear", [integers, self.scales, zeros], {"axis": 0}), at=self.graph[0]
        )
        for node in nodes:
            node.replace_input_with(0, matrix)
            self.attached.exact.add(name_of(node.outputs[0]))

    def _look_up(self, node: ir.Node, table: ir.Value) -> None:
        """A row's integers as they are, times its scale: NPUs have no look-up of scaled rows."""
        unit = constant(self.graph, f"{self.name}.unit", np.float32(1))
        self.attached.exact.add(name_of(unit))
        zero = constant(self.graph, f"{self.name}.unit_zero", np.int8(0))
        column = constant(self.graph, f"{self.name}.column", np.asarray([-1, 1]))
        ids = node.inputs[1]
        rows = self._nodes(
            ("DequantizeLinear", [table, unit, zero], {}),
            ("Gather", [ids], {"axis": 0}),
            ("QuantizeLinear", [unit, zero], {}),
            ("DequantizeLinear", [unit, zero], {}),
            at=node,
        )
        scale = self._nodes(
            ("Reshape", [self.scales, column], {}), ("Gather", [ids], {"axis": 0}), at=node
        )
        tape = ir.tape.Tape()
        product = tape.op("Mul", [rows, scale])
        product.type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_nodes_and_values(
            self.graph, node, [node], tape.nodes, [node.outputs[0]], [product]
        )

    def _nodes(
        self, *chain: tuple[str, list[ir.Value | None], dict[str, int]], at: ir.Node
    ) -> ir.Value:
        """Nodes one after the other, each fed the last one's result, none of them rounded."""
        tape, result = ir.tape.Tape(), None
        for operator, inputs, attributes in chain:
            if result is not None:
                inputs = [result, *inputs]
            result = tape.op(operator, inputs, attributes)
            result.name = f"{self.name}.{len(self.attached.exact)}"
            integers = operator == "QuantizeLinear"
            kind = ir.DataType.INT8 if integers else ir.DataType.FLOAT
            result.type = ir.TensorType(kind)
            self.attached.exact.add(result.name)
        assert result is not None
        self.graph.insert_before(at, tape.nodes)
        return result

    def _again(self, integers: ir.Value) -> ir.Value:
        """The integers under a second name: an NPU's compiler knows one scale for a name."""
        name = f"{self.name}.rows"
        shape = tuple(self.weight.values.shape)
        self.attached.shared.append(SharedData(name, name_of(integers), shape))
        return ir.Value(name=name, shape=ir.Shape(shape), type=integers.type)

    def _integers(self) -> ir.Value:
        shape = tuple(self.weight.values.shape)
        return self._stored("integers", shape, lambda: self.weight.values.numpy())

    def _zeros(self) -> Array:
        return np.zeros(len(self.weight.scales), np.int8)

    def _stored(self, part: str, shape: tuple[int, ...], read: Callable[[], Array]) -> ir.Value:
        """An initializer of the integers' type, read when the file is written."""
        name = f"{self.name}.{part}"
        kind = ir.DataType.from_numpy(self.type)

        def tensor() -> ir.TensorProtocol:
            return ir.Tensor(read().astype(self.type), name=name)

        lazy = ir.LazyTensor(tensor, dtype=kind, shape=ir.Shape(shape), name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(kind), const_value=lazy
        )
        self.graph.register_initializer(value)
        return value

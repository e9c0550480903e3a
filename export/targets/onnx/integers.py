"""Integer weights: MatMulNBits and GatherBlockQuantized, which ONNX Runtime has had since 1.20.

Both read unsigned integers around a zero point of half their range, with a float scale per block
of columns. The file holds scales as fp16, and one per row where all blocks of it are alike; the
runtime unfolds them once, when it loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onekv.export.targets.onnx.rules import block_size
from onekv.export.targets.onnx.trace import PREFIX
from onekv.quantize.numbers import Number
from onekv.quantize.weights import QuantisedWeight

DOMAIN = "com.microsoft"

# int8 activations per block: without it, 8-bit weights are multiplied a hundred times slower.
_ACCURACY_LEVEL = 4

_BITS = {Number.INT8: 8, Number.INT4: 4}


@dataclass(frozen=True)
class SharedData:
    """An initializer `name` of `shape` whose bytes in the weights' file are those of `owner`."""

    name: str
    owner: str
    shape: tuple[int, ...]


def attach_integers(
    model: ir.Model, quantised: Mapping[str, QuantisedWeight]
) -> tuple[SharedData, ...]:
    """Exchange the products and look-ups of quantised weights for those of integers.

    Gives the initializers that are still to be added by `share`: ONNX has no other way to say
    that an embedding and a head are the same bytes in different shapes.
    """
    shared = []
    for value in list(model.graph.initializers.values()):
        weight = quantised.get(str(value.name).removeprefix(PREFIX))
        if weight is not None:
            shared += _exchange(model, value, weight)
    if quantised:
        model.opset_imports[DOMAIN] = 1
    return tuple(shared)


def share(path: Path, shared: Sequence[SharedData]) -> None:
    """Add initializers that lie where others lie, to a file that `weights.save` wrote."""
    if not shared:
        return
    model = onnx.load(path, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for entry in shared:
        twin = model.graph.initializer.add()
        twin.CopyFrom(stored[entry.owner])
        twin.name = entry.name
        del twin.dims[:]
        twin.dims.extend(entry.shape)
    onnx.save(model, path)


def _exchange(model: ir.Model, value: ir.Value, weight: QuantisedWeight) -> list[SharedData]:
    uses = [use.node for use in value.uses()]
    packed = _Packed(model, str(value.name), weight)
    for node in (node for node in uses if node.op_type == "Transpose"):
        matrix = packed.integers("blocks", packed.block_shape)
        for product in [use.node for use in node.outputs[0].uses()]:
            packed.replace(product, "MatMulNBits", [product.inputs[0], matrix])
        model.graph.remove(node, safe=True)
    for node in (node for node in uses if node.op_type == "Gather"):
        table = packed.integers("rows", packed.row_shape)
        packed.replace(node, "GatherBlockQuantized", [table, node.inputs[1]])
    del model.graph.initializers[str(value.name)]
    return packed.shared


class _Packed:
    """A weight's initializers, and the nodes that read them."""

    def __init__(self, model: ir.Model, name: str, weight: QuantisedWeight) -> None:
        self.model, self.weight, self.name = model, weight, name
        self.bits = _BITS[weight.number]
        self.row_count, self.columns = weight.values.shape
        self.block = block_size(self.columns, weight.group)
        blocks = self.columns // self.block
        self.row_shape = (self.row_count, self.columns * self.bits // 8)
        self.block_shape = (self.row_count, blocks, self.row_shape[1] // blocks)
        self.scales = self._scales(blocks)
        self.owner: str | None = None
        self.shared: list[SharedData] = []

    def integers(self, form: str, shape: tuple[int, ...]) -> ir.Value:
        """The integers in a shape: an initializer of their own, or to be shared with the first."""
        name = f"{self.name}.{form}"
        if self.owner is not None:
            self.shared.append(SharedData(name, self.owner, shape))
            return ir.Value(name=name)
        self.owner = name
        return self._initializer(name, shape, ir.DataType.UINT8, self._pack)

    def replace(self, node: ir.Node, operator: str, inputs: list[ir.Value | None]) -> None:
        """Put an operator of integers in a node's place."""
        attributes: dict[str, ir.Attr | int] = {"bits": self.bits, "block_size": self.block}
        if operator == "MatMulNBits":
            attributes |= {"K": self.columns, "N": self.row_count}
            attributes |= {"accuracy_level": _ACCURACY_LEVEL}
        else:
            attributes |= {"gather_axis": 0, "quantize_axis": 1}
        tape = ir.tape.Tape()
        result = tape.op(operator, [*inputs, self.scales], attributes, domain=DOMAIN)
        ir.convenience.replace_nodes_and_values(
            self.model.graph, node, [node], tape.nodes, list(node.outputs), [result]
        )

    def _scales(self, blocks: int) -> ir.Value:
        """float32 [rows, blocks], unfolded from what is stored."""
        shape = tuple(self.weight.scales.shape)
        name = f"{self.name}.scales"
        stored = self._initializer(name, shape, ir.DataType.FLOAT16, self._half_scales)
        tape = ir.tape.Tape()
        scales = tape.op("Cast", [stored], {"to": ir.DataType.FLOAT})
        if self.weight.scales.shape[1] != blocks:
            whole = ir.tensor(np.array([self.row_count, blocks]), name=f"{name}.shape")
            whole_shape = tape.initializer(whole)
            self.model.graph.register_initializer(whole_shape)
            scales = tape.op("Expand", [scales, whole_shape])
        self.model.graph.insert_before(self.model.graph[0], tape.nodes)
        return scales

    def _initializer(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: ir.DataType,
        read: Callable[[], NDArray[np.generic]],
    ) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind))
        tensor = partial(_tensor, read, shape, name)
        value.const_value = ir.LazyTensor(tensor, dtype=kind, shape=ir.Shape(shape), name=name)
        self.model.graph.register_initializer(value)
        return value

    def _pack(self) -> NDArray[np.uint8]:
        """Integers as bytes; of two 4-bit ones in a byte, the first is the lower."""
        values: NDArray[np.uint8] = self.weight.values.numpy().view(np.uint8)
        levels: NDArray[np.uint8] = np.add(values, 1 << (self.bits - 1), dtype=np.uint8)
        if self.bits == 4:
            levels = (levels[:, 0::2] & np.uint8(15)) | (levels[:, 1::2] << np.uint8(4))
        return levels

    def _half_scales(self) -> NDArray[np.float16]:
        return self.weight.scales.numpy().astype(np.float16)


def _tensor(
    read: Callable[[], NDArray[np.generic]], shape: tuple[int, ...], name: str
) -> ir.TensorProtocol:
    return ir.Tensor(np.ascontiguousarray(read()).reshape(shape), name=name)

"""Weights by reference: an initializer reads its tensor when the file is written, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer
from torch import Tensor

from onekv.export.targets import Progress
from onekv.export.targets.onnx.trace import PREFIX
from onekv.runtime.quiet import quiet


def simplify(model: ir.Model) -> None:
    """Fold what is constant, without looking at a weight; drop what the tracer noted of itself."""
    release(model)
    with quiet():
        optimizer.optimize(model)
    for node in model.graph:
        # Source lines and paths of the machine that exports: four fifths of the file.
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def attach(model: ir.Model, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Give every initializer its data, to be read on writing; leave no transposed copy to load.

    `tensors` is named as the decoder names them, its rotary tables included. Weights take
    `dtype`, rotary tables stay as they are. Initializers that have data keep it.
    """
    for value in _weights(model):
        if value.const_value is not None:
            continue
        name = str(value.name).removeprefix(PREFIX)
        tensor = tensors[name]
        target = tensor.dtype if name in ("cos", "sin") else dtype
        _set_data(value, tensor, target)
        for node in [use.node for use in value.uses() if use.node.op_type == "Transpose"]:
            if len(value.uses()) == 1:
                _store_transposed(model, node, tensor, target)
            else:
                _multiply_transposed(model, node)
    RemoveUnusedNodesPass()(model)


def release(model: ir.Model) -> None:
    """Let go of the weights: onnxscript's rewrite rules keep the last graph that they saw."""
    for value in _weights(model):
        value.const_value = None


def save(model: ir.Model, path: Path, progress: Progress | None = None) -> None:
    """Write `path` and, beside it, the weights as `<name>.data`, which runtimes map."""

    def report(_: object, info: ir.external_data.CallbackInfo) -> None:
        if progress:
            progress(info.index + 1, info.total)

    ir.save(
        model,
        path,
        external_data=f"{path.name}.data",
        size_threshold_bytes=1024,
        callback=report,
        max_workers=1,
    )


def _weights(model: ir.Model) -> list[ir.Value]:
    return [v for v in model.graph.initializers.values() if str(v.name).startswith(PREFIX)]


def _set_data(value: ir.Value, tensor: Tensor, dtype: torch.dtype) -> None:
    kind = _IR_TYPES[dtype]
    shape = ir.Shape(tensor.shape)

    def read() -> ir.TensorProtocol:
        data = tensor.detach().to(dtype).contiguous().numpy()
        return ir.Tensor(data, name=value.name)

    value.const_value = ir.LazyTensor(read, dtype=kind, shape=shape, name=value.name)
    value.shape, value.dtype = shape, kind


def _store_transposed(model: ir.Model, node: ir.Node, tensor: Tensor, dtype: torch.dtype) -> None:
    """Store the matrix as MatMul wants it: a runtime would hold both forms while it loads."""
    (source,), (result,) = node.inputs, node.outputs
    assert source is not None
    del model.graph.initializers[str(source.name)]
    source.const_value = None
    stored = ir.Value(name=str(source.name))
    _set_data(stored, tensor.T, dtype)
    model.graph.register_initializer(stored)
    ir.convenience.replace_all_uses_with(result, stored)


def _multiply_transposed(model: ir.Model, node: ir.Node) -> None:
    """A tied head reads the embedding as it lies: Gemm transposes without a second copy."""
    (table,), (result,) = node.inputs, node.outputs
    assert table is not None and table.shape is not None
    vocab, hidden = table.shape
    for matmul in [use.node for use in result.uses()]:
        tape = ir.tape.Tape()
        flat = tape.initializer(ir.tensor(np.array([-1, hidden]), name="head_rows"))
        batched = tape.initializer(ir.tensor(np.array([1, -1, vocab]), name="head_logits"))
        rows = tape.op("Reshape", [matmul.inputs[0], flat])
        product = tape.op("Gemm", [rows, table], {"transB": 1})
        logits = tape.op("Reshape", [product, batched])
        for constant in (flat, batched):
            model.graph.register_initializer(constant)
        ir.convenience.replace_nodes_and_values(
            model.graph, matmul, [matmul], tape.nodes, list(matmul.outputs), [logits]
        )


_IR_TYPES = {torch.float32: ir.DataType.FLOAT, torch.float16: ir.DataType.FLOAT16}

"""Graphs of one attention node, run by onekv's library: there is no function to fall back on."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from torch import Tensor

from onekv.runtime import native
from tests.kernel.calls import Inputs

LIBRARY_VARIABLE = "ONEKV_TESTED_ONNX_LIBRARY"
ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.uint8: TensorProto.UINT8,
    torch.int64: TensorProto.INT64,
}
ATTEND = ("q", "c", "past_low", "past_high", "pos", "cos", "sin", "key_gain")
ATTEND_KV = ("q", "k", "v", "past_keys", "past_values", "pos")
CACHES = ("past_low", "past_high", "past_keys", "past_values")


def feeds_of(inputs: Inputs) -> dict[str, Tensor]:
    """A call's tensors by the names of its node's inputs; caches are the tensors themselves."""
    parts = [part for cache in inputs.caches for part in cache]
    if inputs.call.two_tensors:
        return dict(zip(ATTEND_KV, (inputs.q, inputs.c, inputs.v, *parts, inputs.pos)))
    tables = (inputs.cos, inputs.sin, inputs.gain)
    named = zip(ATTEND, (inputs.q, inputs.c, *parts, inputs.pos, *tables))
    return {name: tensor for name, tensor in named if tensor is not None}


def run_node(inputs: Inputs, in_place: bool = True, **changes: Tensor) -> dict[str, Tensor]:
    """Run the call's node: `out` and, unless in place, the caches with the new rows in.

    In place, the call's own cache tensors are written. `changes` replace inputs by name.
    """
    feeds = feeds_of(inputs) | changes
    op = "AttendKV" if inputs.call.two_tensors else "Attend"
    kinds = tuple((name, tensor.dtype, tensor.dim()) for name, tensor in feeds.items())
    session = node_session(op, kinds, inputs.scale, inputs.call.window)
    binding = session.io_binding()
    for name, tensor in feeds.items():
        value = ort.OrtValue.ortvalue_from_numpy(tensor.contiguous().numpy())
        binding.bind_ortvalue_input(name, value)
        if name in CACHES and in_place:
            binding.bind_ortvalue_output(present(name), value)
    names = [entry.name for entry in session.get_outputs()]
    wanted = ["out", *([] if in_place else names[1:])]
    for name in wanted:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    found = list(binding.get_outputs())[-len(wanted) :]
    return {name: torch.from_numpy(value.numpy().copy()) for name, value in zip(wanted, found)}


def present(past: str) -> str:
    """The output that a cache input becomes."""
    return past.replace("past", "present")


def library() -> str:
    """The library under test: the installed one, unless the environment names another build."""
    return os.environ.get(LIBRARY_VARIABLE) or str(native.require_library(native.ONNX))


@functools.cache
def node_session(
    op: str,
    kinds: Sequence[tuple[str, torch.dtype, int]],
    scale: float,
    window: int,
    threads: int = 2,
) -> ort.InferenceSession:
    """A session of one node; `kinds` are its inputs' names, types and ranks."""
    types = {name: ONNX_TYPES[dtype] for name, dtype, _ in kinds}
    known = ATTEND if op == "Attend" else ATTEND_KV
    outputs = {"out": types["q"]} | {present(n): types[n] for n in types if n in CACHES}
    node = helper.make_node(
        op, [name if name in types else "" for name in known], list(outputs), domain="onekv",
        scale=scale, window=window,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(n, types[n], [None] * rank) for n, _, rank in kinds],
        [helper.make_tensor_value_info(n, kind, [None] * 4) for n, kind in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("onekv", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    settings.register_custom_ops_library(library())
    return ort.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])


__all__ = ["CACHES", "LIBRARY_VARIABLE", "feeds_of", "present", "run_node"]

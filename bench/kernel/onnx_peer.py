"""ONNX Runtime's GroupQueryAttention over two caches, fp32 or int8, bound in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from onekv.bench.kernel.contest import Shape, Step

CACHE_TYPES = {"fp32": (TensorProto.FLOAT, np.float32), "int8": (TensorProto.INT8, np.int8)}


def onnxruntime_steps(shape: Shape, cache: str) -> list[Step]:
    """Calls of one operator; `cache` is "fp32" or "int8" (a scale per channel)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = shape.threads
    # Spinning threads of one contender would slow down the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = _model(shape, cache).SerializeToString()
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    size = (
        2
        * shape.length
        * shape.kv_heads
        * shape.head_dim
        * np.dtype(CACHE_TYPES[cache][1]).itemsize
    )
    return [_step(session, shape, cache) for _ in range(shape.copies(size))]


def _step(session: ort.InferenceSession, shape: Shape, cache: str) -> Step:
    binding = session.io_binding()
    values = {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in _arrays(shape, cache).items()}
    out = ort.OrtValue.ortvalue_from_numpy(_random(_floats(shape)["q"]))
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in (("out", out), ("nk", values["pk"]), ("nv", values["pv"])):
        binding.bind_ortvalue_output(name, value)
    return lambda: (session.run_with_iobinding(binding), values, out)


def _floats(shape: Shape) -> dict[str, list[int]]:
    new = [1, shape.new_tokens, shape.kv_heads * shape.head_dim]
    return {"q": [1, shape.new_tokens, shape.heads * shape.head_dim], "k": new, "v": new}


def _past(shape: Shape) -> list[int]:
    return [1, shape.kv_heads, shape.length, shape.head_dim]


def _arrays(shape: Shape, cache: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {n: _random(s) for n, s in _floats(shape).items()}
    for name in ("pk", "pv"):
        past = random.standard_normal(_past(shape), dtype=np.float32)
        arrays[name] = past if cache == "fp32" else (past * 30).clip(-127, 127).astype(np.int8)
    arrays["len"] = np.array([shape.length - 1], np.int32)
    arrays["total"] = np.array([shape.length], np.int32)
    if cache == "int8":
        scales = np.full([1, shape.kv_heads, 1, shape.head_dim], 1 / 30, np.float32)
        arrays |= {"ks": scales, "vs": scales}
    return arrays


def _random(shape: list[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _model(shape: Shape, cache: str) -> onnx.ModelProto:
    kind = CACHE_TYPES[cache][0]
    inputs = [_value(n, TensorProto.FLOAT, s) for n, s in _floats(shape).items()]
    inputs += [_value(n, kind, _past(shape)) for n in ("pk", "pv")]
    inputs += [_value(n, TensorProto.INT32, [1]) for n in ("len", "total")]
    names = [value.name for value in inputs]
    attributes: dict[str, Any] = {}
    if cache == "int8":
        scales = [1, shape.kv_heads, 1, shape.head_dim]
        inputs += [_value(n, TensorProto.FLOAT, scales) for n in ("ks", "vs")]
        names += [""] * 5 + ["ks", "vs"]
        attributes = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL",
                      "kv_cache_bit_width": 8}  # fmt: skip
    node = helper.make_node(
        "GroupQueryAttention", names, ["out", "nk", "nv"], domain="com.microsoft",
        num_heads=shape.heads, kv_num_heads=shape.kv_heads, **attributes,
    )  # fmt: skip
    outputs = [_value("out", TensorProto.FLOAT, _floats(shape)["q"])]
    outputs += [_value(n, kind, _past(shape)) for n in ("nk", "nv")]
    graph = helper.make_graph([node], "gqa", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _value(name: str, kind: Any, dims: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)

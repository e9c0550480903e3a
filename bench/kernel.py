"""The attention kernel against its peers on this machine: `python -m onekv.bench.kernel`.

One decode step at a time, all contenders in turn within one run, medians, with the machine's
streaming-read bandwidth beside them. Compare ratios, not times, between machines.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onekv.runtime import kernel_library as kernel
from onekv.runtime.row_codec import encode
from onekv.runtime.rows import RowFormat

HEADS = ((32, 8), (32, 1), (8, 8))
CONTEXTS = (512, 2048, 8192, 32_768)
BEYOND_CACHES = 200_000_000
"""Bytes of caches that a contender goes through in turn, so that they come from memory."""


@dataclass(frozen=True)
class Shape:
    """One decode step: query heads, kv heads, head_dim, tokens cached before it, threads."""

    heads: int
    kv_heads: int
    head_dim: int
    context: int
    threads: int


Step = Callable[[], object]


def own_steps(shape: Shape, form: RowFormat, rope: bool, two_tensors: bool) -> list[Step]:
    """Calls of our kernel, one for each of enough caches."""
    row_bytes = shape.kv_heads * form.row_bytes(shape.head_dim) * (2 if two_tensors else 1)
    copies = 1
    if shape.context >= 8192:
        copies = max(1, min(8, BEYOND_CACHES // (row_bytes * shape.context)))
    return [_own_step(shape, form, rope, two_tensors) for _ in range(copies)]


def _own_step(shape: Shape, form: RowFormat, rope: bool, two_tensors: bool) -> Step:
    length, half = shape.context + 1, shape.head_dim // 2
    q = torch.randn(1, 1, shape.heads, shape.head_dim)
    new, out = torch.randn(1, 1, shape.kv_heads, shape.head_dim), torch.empty_like(q)
    caches = [_cache(shape, form, length) for _ in range(1 + two_tensors)]
    angles = torch.outer(torch.arange(length).double(), 5e5 ** -(torch.arange(half) / half))
    cos, sin = angles.cos().float(), angles.sin().float()
    fields: dict[str, object] = {
        "batch": 1,
        "new_tokens": 1,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "length": length,
        "position": shape.context,
        "scale": shape.head_dim**-0.5,
        "q": _tensor(q),
        "new_rows": _tensor(new),
        "out": _tensor(out),
        "format": form.code,
        "rows": _rows(caches[0]),
        "threads": shape.threads,
    }
    if rope:
        fields |= {"cos": cos.data_ptr(), "sin": sin.data_ptr()}
        fields |= {"table_length": length, "table_stride": half}
    if two_tensors:
        fields |= {"values": _rows(caches[1]), "new_values": _tensor(new)}
    args, library = kernel.CAttendArgs(**fields), kernel.load()
    held = (q, new, out, caches, cos, sin)

    def step() -> object:
        kernel.attend(args, library)
        return held  # what the arguments point to must live as long as the step

    return step


def _cache(shape: Shape, form: RowFormat, length: int) -> Tensor:
    some = encode(torch.randn(1, shape.kv_heads, min(length, 1024), shape.head_dim), form)
    return some.repeat(1, 1, -(-length // some.shape[2]), 1)[:, :, :length].contiguous()


def _tensor(t: Tensor) -> kernel.CTensor:
    return kernel.CTensor(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2))


def _rows(t: Tensor) -> kernel.CRows:
    batch, head, row = (stride * t.element_size() for stride in t.stride()[:3])
    return kernel.CRows((ctypes.c_void_p * 2)(t.data_ptr(), None), batch, head, row)


def onnxruntime_steps(shape: Shape) -> list[Step]:
    """ONNX Runtime's GroupQueryAttention over two fp32 caches, bound in place."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper

    length, d = shape.context + 1, shape.head_dim
    new, past = [1, 1, shape.kv_heads * d], [1, shape.kv_heads, length, d]
    floats = {"q": [1, 1, shape.heads * d], "k": new, "v": new, "pk": past, "pv": past}
    outputs = {"out": floats["q"], "nk": past, "nv": past}
    node = helper.make_node(
        "GroupQueryAttention", [*floats, "len", "total"], list(outputs), domain="com.microsoft",
        num_heads=shape.heads, kv_num_heads=shape.kv_heads,
    )  # fmt: skip
    integers = {"len": [1], "total": [1]}
    graph = helper.make_graph(
        [node], "gqa",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in floats.items()]
        + [helper.make_tensor_value_info(n, TensorProto.INT32, s) for n, s in integers.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = shape.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {n: ort.OrtValue.ortvalue_from_numpy(_random(s)) for n, s in floats.items()}
    values["out"] = ort.OrtValue.ortvalue_from_numpy(_random(outputs["out"]))
    values["len"] = ort.OrtValue.ortvalue_from_numpy(np.array([shape.context], np.int32))
    values["total"] = ort.OrtValue.ortvalue_from_numpy(np.array([length], np.int32))
    for name in [*floats, *integers]:
        binding.bind_ortvalue_input(name, values[name])
    for name, source in (("out", "out"), ("nk", "pk"), ("nv", "pv")):
        binding.bind_ortvalue_output(name, values[source])
    return [lambda: (session.run_with_iobinding(binding), values)]


def _random(shape: list[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def interleaved_medians(steps: dict[str, list[Step]], seconds: float) -> dict[str, float]:
    """Median microseconds of each contender, which take turns."""
    turns = {name: itertools.cycle(calls) for name, calls in steps.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    end = time.monotonic() + seconds * len(steps)
    while time.monotonic() < end:
        for name, calls in turns.items():
            for _ in range(3):
                step = next(calls)
                start = time.perf_counter()
                step()
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) * 1e6 for name, times in taken.items()}


def streaming_read(threads: int) -> float:
    """GB/s at which `threads` threads read memory that no cache holds."""
    torch.set_num_threads(threads)
    data, rates = torch.ones(50_000_000), []
    for _ in range(7):
        start = time.perf_counter()
        data.sum()
        rates.append(data.numel() * 4 / (time.perf_counter() - start) / 1e9)
    return float(np.median(rates))


def measure(shape: Shape, seconds: float) -> dict[str, object]:
    """All contenders at one shape."""
    steps: dict[str, list[Step]] = {}
    for form in RowFormat:
        steps[f"{form} rope"] = own_steps(shape, form, rope=True, two_tensors=False)
        steps[f"{form}"] = own_steps(shape, form, rope=False, two_tensors=False)
        steps[f"{form} two tensors"] = own_steps(shape, form, rope=False, two_tensors=True)
    steps["onnxruntime fp32"] = onnxruntime_steps(shape)
    times = interleaved_medians(steps, seconds)
    return {"shape": vars(shape), "stream_gb_s": streaming_read(shape.threads), "us": times}


def table(result: dict[str, object]) -> str:
    """The result of one shape as lines of text."""
    times, shape = result["us"], result["shape"]
    assert isinstance(times, dict) and isinstance(shape, dict)
    lines = [f"{shape}  streaming read {result['stream_gb_s']:.1f} GB/s"]
    for form in RowFormat:
        rope, plain, two = (times[f"{form}{kind}"] for kind in (" rope", "", " two tensors"))
        ratio, ort = two / rope, times["onnxruntime fp32"] / rope
        size = shape["kv_heads"] * shape["context"] * form.row_bytes(shape["head_dim"])
        lines.append(
            f"  {form:5} rope {rope:8.0f} us ({size / rope / 1e3:5.1f} GB/s)"
            f"  no rope {plain:8.0f}  two tensors {two:8.0f}"
            f" (two/one {ratio:.2f}, {two / plain:.2f})  ORT fp32/ours {ort:.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print; `--json` writes all figures as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="per contender and shape")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--head-dims", type=int, nargs="+", default=(64, 128))
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    results = []
    for threads, dim, context, (heads, kv_heads) in itertools.product(
        options.threads, options.head_dims, options.contexts, HEADS
    ):
        results.append(measure(Shape(heads, kv_heads, dim, context, threads), options.seconds))
        print(table(results[-1]), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

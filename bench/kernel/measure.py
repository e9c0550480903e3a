"""All contenders at one shape, and the result as text."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from statistics import median

from onekv.bench.kernel.contest import Shape, Step, interleaved_medians, streaming_reads
from onekv.bench.kernel.ours import own_steps
from onekv.bench.kernel.torch_peers import executorch_steps, has_executorch, torch_steps
from onekv.runtime.quiet import native_notes
from onekv.runtime.rows import RowFormat

PEERS = ("onnxruntime fp32", "onnxruntime int8", "executorch fp32")


@dataclass(frozen=True)
class Result:
    """Microseconds of each contender at one shape, and the bandwidth of the same run."""

    shape: Shape
    stream_gb_s: float
    us: dict[str, float]

    def record(self) -> dict[str, object]:
        """As JSON holds it."""
        return asdict(self)


def decode_steps(shape: Shape) -> dict[str, list[Step]]:
    """One new token: every row format with RoPE, without, and over two tensors; the peers."""
    from onekv.bench.kernel.onnx_peer import onnxruntime_steps

    steps: dict[str, list[Step]] = {}
    for form in RowFormat:
        steps[f"{form} rope"] = own_steps(shape, form, rope=True)
        steps[f"{form}"] = own_steps(shape, form)
        steps[f"{form} two tensors"] = own_steps(shape, form, two_tensors=True)
    for cache in ("fp32", "int8"):
        steps[f"onnxruntime {cache}"] = onnxruntime_steps(shape, cache)
    # Its threads are the machine's; it cannot be asked for fewer.
    if has_executorch() and shape.threads == os.cpu_count():
        steps["executorch fp32"] = executorch_steps(shape)
    return steps


def prefill_steps(shape: Shape) -> dict[str, list[Step]]:
    """Many new tokens: every row format with RoPE, and torch over two fp32 tensors."""
    steps = {f"{form} rope": own_steps(shape, form, rope=True) for form in RowFormat}
    return steps | {"torch fp32": torch_steps(shape)}


def measure(shape: Shape, seconds: float) -> Result:
    """Time all contenders; `seconds` are for each."""
    steps = decode_steps(shape) if shape.new_tokens == 1 else prefill_steps(shape)
    rates = streaming_reads(shape.threads)
    with native_notes():  # ExecuTorch's operator reports at each call that it has no allocator
        times = interleaved_medians(steps, seconds)
    rates += streaming_reads(shape.threads)
    return Result(shape, median(rates), times)


def table(result: Result) -> str:
    """The result of one shape as lines of text."""
    shape = result.shape
    head = (
        f"({shape.heads},{shape.kv_heads}) D {shape.head_dim} context {shape.context} "
        f"new {shape.new_tokens} threads {shape.threads}: "
        f"streaming read {result.stream_gb_s:.1f} GB/s"
    )
    row = _decode_row if shape.new_tokens == 1 else _prefill_row
    return "\n".join([head, *(row(result, form) for form in RowFormat)])


def _decode_row(result: Result, form: RowFormat) -> str:
    shape, us = result.shape, result.us
    rope, plain, two = (us[f"{form}{kind}"] for kind in (" rope", "", " two tensors"))
    size = shape.kv_heads * shape.context * form.row_bytes(shape.head_dim)
    peers = ", ".join(f"{name} / ours {us[name] / rope:.1f}" for name in PEERS if name in us)
    return (
        f"  {form:5} rope {rope:7.0f} us {size / rope / 1e3:5.1f} GB/s, without {plain:7.0f} us"
        f" {size / plain / 1e3:5.1f} GB/s, two tensors {two:7.0f} us"
        f" (two / one {two / rope:.2f} rope, {two / plain:.2f} without); {peers}"
    )


def _prefill_row(result: Result, form: RowFormat) -> str:
    ours, torch = result.us[f"{form} rope"], result.us["torch fp32"]
    return f"  {form:5} rope {ours / 1e3:7.1f} ms; torch fp32 / ours {torch / ours:.2f}"

"""Core ML packages in figures: sizes against bits times parameters, state bytes, time, memory.

    python -m onekv.bench.coreml [--shapes sample,smollm2,paper-300m] [--formats ...]

Weights are random: sizes, times and memory depend on shapes alone. Every export runs in a
process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from onekv.export.model.paper import paper_model
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Rope, Sharing
from onekv.export.options import ExportOptions, Profile, Target
from onekv.quantize.numbers import Number

CONTEXT = 512
SHAPES = {
    "sample": ModelSpec(
        vocab_size=2048,
        layers=4,
        hidden_size=256,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn_size=704,
        max_positions=512,
        sharing=Sharing.K_IS_V,
    ),
    "smollm2-135m": ModelSpec(
        vocab_size=49_152,
        layers=30,
        hidden_size=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        ffn_size=1536,
        max_positions=8192,
        sharing=Sharing.QKV,
        rope=Rope(theta=1e5),
    ),
    "paper-300m": paper_model("300m/q-k=v"),
}
FORMATS = {
    "gpu fp16": (Profile.GPU, Number.FP16),
    "gpu int8": (Profile.GPU, Number.INT8),
    "gpu int4": (Profile.GPU, Number.INT4),
    "npu int4": (Profile.NPU, Number.INT4),
}


@dataclass(frozen=True)
class Result:
    """One export: bytes, seconds, and the peak memory of its process in bytes."""

    shape: str
    form: str
    weight_bytes: int
    expected_bytes: int
    states: int
    expected_states: int
    seconds: float
    peak: int
    fp32_bytes: int

    def line(self) -> str:
        return (
            f"{self.shape:14s} {self.form:9s} {self.weight_bytes / 1e6:8.1f} MB "
            f"{self.weight_bytes / self.expected_bytes - 1:+7.2%} of expected  "
            f"state {self.states} B ({'equal' if self.states == self.expected_states else 'WRONG'})"
            f"  {self.seconds:6.1f} s  peak {self.peak / 1e6:6.0f} MB "
            f"= {self.peak / self.fp32_bytes:.2f} x fp32 weights"
        )


def expected_bytes(spec: ModelSpec, options: ExportOptions) -> int:
    """What the stored weights should take: bits times elements, scales, and rotary tables."""
    from onekv.export.targets.coreml.rounding import BLOCK, PALETTE_ROWS, SMALLEST, is_matrix
    from onekv.export.targets.coreml.rules import coreml_options

    scheme = coreml_options(options).scheme
    shapes: Mapping[str, tuple[int, ...]] = parameter_shapes(spec)
    total = 0.0
    if spec.rope is not None:
        # Cosines and sines of queries in fp32 and of keys in fp16.
        total += options.context * spec.head_dim * (4 + 2)
    for name, shape in shapes.items():
        count = prod(shape)
        if scheme == "fp16" or not is_matrix(name, shape) or count < SMALLEST:
            total += 2 * count
        elif scheme == "int8":
            total += count + 2 * shape[0]
        elif scheme == "block":
            total += count / 2 + 2 * count / BLOCK
        else:
            total += count / 2 + 32 * shape[0] / PALETTE_ROWS
        if name == "embed_tokens.weight" and options.profile is Profile.NPU and spec.tied_head:
            # The head is a convolution of its own there, beside the table of embeddings.
            total += count / 2 + 32 * shape[0] / PALETTE_ROWS
    return int(total)


def measure(shape: str, form: str) -> Result:
    """Export one shape in one form, in this process."""
    import torch

    from onekv.export.targets import LowerRequest
    from onekv.export.targets.coreml.lower import lower
    from onekv.runtime.mil import read_package
    from onekv.runtime.mil.summary import summarise

    spec, (profile, weights) = SHAPES[shape], FORMATS[form]
    options = ExportOptions(Target.COREML, CONTEXT, weights, Number.FP16, profile)
    generator = torch.Generator().manual_seed(0)

    def load() -> dict[str, torch.Tensor]:
        return {
            name: torch.randn(size, generator=generator).mul_(0.02).half()
            for name, size in parameter_shapes(spec).items()
        }

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        request = LowerRequest(spec, options, load, (0,), None)
        entry = lower(request, Path(folder), lambda done, total: None)
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        summary = summarise(read_package(Path(folder) / entry))
    per_state = spec.layers * spec.kv_heads * CONTEXT * spec.head_dim * 2
    return Result(
        shape=shape,
        form=form,
        weight_bytes=summary.weight_bytes,
        expected_bytes=expected_bytes(spec, options),
        states=sum(summary.states.values()),
        expected_states=per_state * spec.sharing.cached_tensors,
        seconds=seconds,
        peak=peak,
        fp32_bytes=4 * sum(prod(size) for size in parameter_shapes(spec).values()),
    )


def main() -> None:
    """Print one line per shape and form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    results = []
    context = multiprocessing.get_context("spawn")
    for shape in arguments.shapes.split(","):
        for form in arguments.formats.split(","):
            with context.Pool(1) as pool:
                results.append(pool.apply(measure, (shape, form)))
            print(results[-1].line(), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(r) for r in results], indent=2) + "\n")


if __name__ == "__main__":
    main()

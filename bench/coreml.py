"""`make bench-coreml`: what Core ML packages take, against bits times parameters, and their cost.

Weights are random: sizes, times and memory depend on shapes alone. Every export is a whole one,
check against the source model included, in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.export.model.paper import paper_model
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Rope, Sharing
from onekv.export.options import Asked, Profile, Target
from onekv.export.targets import Progress
from onekv.quantize.numbers import Number

if TYPE_CHECKING:
    from onekv.export.checkpoints.base import Checkpoint

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
    f"{profile} {number}": (profile, number)
    for profile in (Profile.GPU, Profile.NPU)
    for number in (Number.FP16, Number.INT8, Number.INT4)
}


@dataclass
class Stages:
    """Implements `Reporter`: seconds of each stage, and the process's peak when it ended."""

    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        begin = time.perf_counter()
        yield lambda done, total: None
        self.seconds[name] = time.perf_counter() - begin
        self.peaks[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Result:
    """One export, in bytes and seconds. `peaks` are the process's so far, after each stage."""

    shape: str
    form: str
    weight_bytes: int
    expected_bytes: int
    states: int
    expected_states: int
    fp32_bytes: int
    seconds: dict[str, float]
    peaks: dict[str, int]

    def lines(self) -> Iterator[str]:
        """The figures of the package, and then a line per stage."""
        peak, total = max(self.peaks.values()), sum(self.seconds.values())
        yield (
            f"{self.shape:14s} {self.form:9s} {self.weight_bytes / 1e6:8.1f} MB "
            f"{self.weight_bytes / self.expected_bytes - 1:+7.2%} of expected  "
            f"state {self.states} B ({'equal' if self.states == self.expected_states else 'WRONG'})"
            f"  {total:6.1f} s  peak {peak / 1e6:6.0f} MB = {peak / self.fp32_bytes:.2f} x fp32"
        )
        for name, seconds in self.seconds.items():
            peak = self.peaks[name]
            times = peak / self.fp32_bytes
            yield f"    {name:18s} {seconds:6.1f} s  peak so far {times:.2f} x fp32"


def measure(shape: str, form: str, weights: Path) -> Result:
    """Export one shape in one form, in this process."""
    from onekv.export.pipeline import plan_export, run_export
    from onekv.export.resolve import resolve_options
    from onekv.export.targets.coreml.rules import stored_bytes
    from onekv.runtime.mil import read_package
    from onekv.runtime.mil.summary import summarise

    spec, (profile, number) = SHAPES[shape], FORMATS[form]
    asked = Asked(CONTEXT, number, profile=profile)
    options = resolve_options(spec, Target.COREML, asked)
    plan = plan_export(_checkpoint(spec, weights), options, None, need_tokenizer=False)
    stages = Stages()
    with tempfile.TemporaryDirectory(dir=weights.parent) as folder:
        bundle = run_export(plan, Path(folder) / "bundle", reporter=stages)
        summary = summarise(read_package(bundle.entry))
    per_state = spec.layers * spec.kv_heads * CONTEXT * spec.head_dim * 2
    return Result(
        shape=shape,
        form=form,
        weight_bytes=summary.weight_bytes,
        expected_bytes=stored_bytes(spec, options, plan.weights),
        states=sum(summary.states.values()),
        expected_states=per_state * spec.sharing.cached_tensors,
        fp32_bytes=4 * sum(prod(size) for size in parameter_shapes(spec).values()),
        seconds=stages.seconds,
        peaks=stages.peaks,
    )


def _checkpoint(spec: ModelSpec, weights: Path) -> Checkpoint:
    """Weights in a file under a decoder's own names, mapped when they are loaded."""
    from safetensors.torch import load_file

    from onekv.export.checkpoints.base import Checkpoint

    return Checkpoint(
        spec=spec,
        source=weights.name,
        format="random",
        files=(weights,),
        eos_token_ids=(0,),
        bos_token_id=None,
        sharing_evidence="random weights",
        obstacle=None,
        _read=lambda: load_file(weights),
        _find_tokenizer=lambda: None,
    )


def write_random(shape: str, weights: Path) -> None:
    """Seeded random weights of a shape, float32."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, size in parameter_shapes(SHAPES[shape]).items():
        state[name] = torch.randn(size, generator=generator).mul_(0.02)
        if name.endswith("norm.weight"):
            state[name] += 1
    save_file(state, weights)


def main(
    shapes: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(SHAPES),
    formats: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(FORMATS),
    to_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Print the figures of every shape and form."""
    context, results = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes.split(","):
            weights = Path(folder) / f"{shape}.safetensors"
            with context.Pool(1) as pool:
                pool.apply(write_random, (shape, weights))
            for form in formats.split(","):
                with context.Pool(1) as pool:
                    results.append(pool.apply(measure, (shape, form, weights)))
                for line in results[-1].lines():
                    print(line, flush=True)
            weights.unlink()
    if to_json is not None:
        to_json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)

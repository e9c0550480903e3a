"""`make bench-executorch`: SmolLM2-135M as 8da4w with two cached tensors, by onekv and by
optimum-executorch; the one-tensor sample model beside its twin; the paper's largest shape.

What was measured is kept and not measured again, so that an interrupted run goes on.
"""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from onekv.bench import executorch_exports as exports
from onekv.bench import random_paper
from onekv.bench.executorch_decode import Contest, contest
from onekv.bench.executorch_exports import Exported, run_export
from onekv.bench.executorch_tables import export_table, speed_table
from onekv.bench.kept import Kept
from onekv.export.plan import parameters

SAMPLE_CONTEXT = 512


class Again(enum.StrEnum):
    """What to measure although it was measured."""

    NOTHING = "nothing"
    DECODE = "decode"
    ALL = "all"


@dataclass(frozen=True)
class Run:
    """Where measurements are kept, and which are made again."""

    work: Path
    kept: Kept
    again: Again
    tokens: int

    def exported(self, group: Iterator[exports.Export]) -> list[Exported]:
        """Run or recall a group of exports."""
        return [run_export(each, self.kept, self.work, _say) for each in group]

    def decoded(self, programs: list[Exported], context: int) -> Contest:
        """Decode at the start, after a quarter, and at the end of the context."""
        depths = (0, context // 4, context - self.tokens)
        again = self.again is not Again.NOTHING
        return contest(programs, depths, self.tokens, self.kept, self.work, _say, again)


def main(
    gguf: Annotated[Path, typer.Option(help="SmolLM2-135M-Instruct as a GGUF.")],
    work: Annotated[Path, typer.Option(help="Folder for models, logs and results.")] = Path(
        ".bench"
    ),
    again: Annotated[
        Again, typer.Option(help="What to measure although it is kept in --work.")
    ] = Again.NOTHING,
    context: Annotated[int, typer.Option(help="Context of the SmolLM2 programs.")] = (
        exports.CONTEXT
    ),
    tokens: Annotated[int, typer.Option(help="Tokens to decode at each depth.")] = 16,
    large: Annotated[bool, typer.Option(help="Export the paper's 1.2B shape too.")] = True,
    decode: Annotated[bool, typer.Option(help="Measure decode speeds too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export and measure, one after the other, and print tables."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    kept = Kept(work.resolve() / "executorch.jsonl")
    if again is Again.ALL:
        kept.path.unlink(missing_ok=True)
    run = Run(work.resolve(), kept, again, tokens)
    peers = run.exported(exports.smollm2(run.work, gguf, context))
    samples = run.exported(exports.samples(run.work))
    largest = run.exported(exports.largest(run.work)) if large else []
    groups = ((peers, context), (samples, SAMPLE_CONTEXT)) if decode else ()
    contests = [run.decoded(programs, length) for programs, length in groups]
    rows = [*peers, *samples, *largest]
    if as_json:
        result = {"exports": list(map(asdict, rows)), "decode": list(map(asdict, contests))}
        print(json.dumps(result))
        return
    console = Console()
    console.print(export_table(rows))
    for each in contests:
        console.print(speed_table(each.speeds))
        print(f"streaming read: {each.stream_gb_s:.1f} GB/s")
    weights = 4 * parameters(random_paper.SPEC)
    for row in largest:
        print(f"{row.model}: peak RSS {row.peak_rss / weights:.2f} times the fp32 weights")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)

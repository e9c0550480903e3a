"""`make bench-export`: what an export costs, beside optimum's and on the paper's largest shape."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from onekv.bench import greedy_tokens, inputs, random_paper
from onekv.bench.measure import Cost, folder_bytes, run_measured
from onekv.export.plan import parameters

CONTEXT, GREEDY, HELP_RUNS = 2048, 32, 7
PROMPT = "The capital of France is"


@dataclass(frozen=True)
class Export:
    """One row: who exported what, at which cost, to how many bytes."""

    model: str
    tool: str
    seconds: float
    peak_rss: int
    output_bytes: int
    fp32_weight_bytes: int


@dataclass(frozen=True)
class Result:
    """Everything that is printed. same_tokens: of the `compared_tokens` before the text ends."""

    exports: tuple[Export, ...]
    same_tokens: int
    compared_tokens: int
    help_seconds: float


def export_smollm2(work: Path, gguf: Path) -> tuple[Export, ...]:
    """SmolLM2-135M in float32, by optimum and by onekv, from the same folder."""
    model = inputs.smollm2(work, gguf)
    weights = (model / "model.safetensors").stat().st_size
    task = ("--task", "text-generation-with-past")
    context = ("--force", "--context", str(CONTEXT), "-o")
    commands: dict[str, tuple[str | Path, ...]] = {
        "optimum": (work / "optimum/bin/optimum-cli", "export", "onnx", "--model", model, *task),
        "onekv": (inputs.ONEKV, "export", model, *context),
    }
    rows = []
    for tool, command in commands.items():
        out = work / f"smollm2-{tool}"
        cost = run_measured([*command, out], work / f"{tool}.log")
        rows.append(_row("SmolLM2-135M", tool, cost, out, weights))
    return tuple(rows)


def export_large(work: Path) -> Export:
    """The paper's 1.2B Q-K=V shape from a `.pt` of seeded random weights."""
    checkpoint, out = inputs.largest(work), work / "paper-1.2b-onnx"
    options = ("--force", "--no-tokenizer", "-o", out)
    cost = run_measured([inputs.ONEKV, "export", checkpoint, *options], work / "large.log")
    weights = 4 * parameters(random_paper.SPEC)
    return _row("paper 1.2B Q-K=V", "onekv", cost, out, weights)


def same_greedy_tokens(work: Path) -> tuple[int, int]:
    """How many greedy tokens both exports of SmolLM2 give alike, and of how many."""
    options = ("--max-tokens", str(GREEDY), "--json")
    run = (inputs.ONEKV, "run", work / "smollm2-onekv", PROMPT, *options)
    found = run_measured(run, work / "run.log")
    ours = json.loads(found.output)["generation"]["tokens"]
    from onekv.export.tokenizer import load_tokenizer

    ids = load_tokenizer(work / "smollm2-onekv").encode(PROMPT).ids
    program = (work / "optimum/bin/python", greedy_tokens.__file__, "optimum")
    arguments = (work / "smollm2-optimum", str(len(ours)), json.dumps(ids))
    theirs = json.loads(run_measured((*program, *arguments), work / "peer.log").output)
    return sum(a == b for a, b in zip(ours, theirs)), len(ours)


def help_seconds(work: Path) -> float:
    """The median wall time of `onekv --help`."""
    runs = [run_measured([inputs.ONEKV, "--help"], work / "help.log") for _ in range(HELP_RUNS)]
    return statistics.median(run.seconds for run in runs)


def main(
    gguf: Annotated[Path, typer.Option(help="SmolLM2-135M-Instruct as a GGUF.")],
    work: Annotated[Path, typer.Option(help="Folder for models and logs.")] = Path(".bench"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure exports one after the other and print a table."""
    # No tool may look a model up by name, and all get the same threads.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    work = work.resolve()
    exports = (*export_smollm2(work, gguf), export_large(work))
    result = Result(exports, *same_greedy_tokens(work), help_seconds(work))
    if as_json:
        print(json.dumps(asdict(result)))
        return
    Console().print(_table(exports))
    same, compared = result.same_tokens, result.compared_tokens
    print(f"greedy tokens of both SmolLM2 exports: {same} of {compared} equal")
    print(f"onekv --help: {result.help_seconds:.2f} s (median of {HELP_RUNS})")


def _row(model: str, tool: str, cost: Cost, out: Path, weights: int) -> Export:
    return Export(model, tool, cost.seconds, cost.peak_rss, folder_bytes(out), weights)


def _table(rows: tuple[Export, ...]) -> Table:
    table = Table(title="Export to ONNX, fp32")
    for heading in ("model", "tool", "wall time", "peak RSS", "of fp32 weights", "output"):
        table.add_column(heading, justify="left" if heading in ("model", "tool") else "right")
    for row in rows:
        table.add_row(
            row.model,
            row.tool,
            f"{row.seconds:.0f} s",
            f"{row.peak_rss / 2**20:.0f} MiB",
            f"{row.peak_rss / row.fp32_weight_bytes:.2f}x",
            f"{row.output_bytes / 2**20:.0f} MiB",
        )
    return table


if __name__ == "__main__":
    typer.run(main)

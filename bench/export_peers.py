"""`make bench-export`: what an export costs, beside optimum's and on the paper's largest shape."""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from onekv.bench.process import Cost, folder_bytes, measure

CONTEXT = 2048
HELP_RUNS = 7


@dataclass(frozen=True)
class Export:
    """One row: who exported what, at which cost, to how many bytes."""

    model: str
    tool: str
    seconds: float
    peak_bytes: int
    output_bytes: int
    fp32_weight_bytes: int


def export_smollm2(work: Path, gguf: Path) -> list[Export]:
    """SmolLM2-135M in float32, by optimum and by onekv, from the same folder."""
    model = work / "smollm2"
    if not model.exists():
        measure([_tool("onekv"), "convert", str(gguf), "-o", str(model)], work / "convert.log")
    weights = (model / "model.safetensors").stat().st_size
    rows = []
    for tool, command in (
        ("optimum", [str(work / "optimum/bin/optimum-cli"), "export", "onnx", "--task",
                     "text-generation-with-past", "--model", str(model)]),
        ("onekv", [_tool("onekv"), "export", "--force", "--context", str(CONTEXT), str(model),
                   "-o"]),
    ):  # fmt: skip
        out = work / f"smollm2-{tool}"
        cost = measure([*command, str(out)], work / f"{tool}.log", _environment())
        rows.append(_row("SmolLM2-135M", tool, cost, out, weights))
    return rows


def export_large(work: Path) -> list[Export]:
    """The paper's 1.2B Q-K=V shape from a `.pt` of seeded random weights."""
    checkpoint, out = work / "random-1.2b.pt", work / "random-1.2b-onnx"
    if not checkpoint.exists():
        partial = checkpoint.with_suffix(".partial")
        measure(
            [sys.executable, "-m", "onekv.bench.random_checkpoint", str(partial)],
            work / "random.log",
        )
        partial.rename(checkpoint)
    command = [_tool("onekv"), "export", str(checkpoint), "--force", "--no-tokenizer"]
    cost = measure([*command, "-o", str(out)], work / "large.log", _environment())
    return [_row("paper 1.2B Q-K=V", "onekv", cost, out, checkpoint.stat().st_size)]


def help_seconds(work: Path) -> float:
    """The median wall time of `onekv --help`."""
    runs = [measure([_tool("onekv"), "--help"], work / "help.log") for _ in range(HELP_RUNS)]
    return statistics.median(run.seconds for run in runs)


def main(
    gguf: Annotated[Path, typer.Option(help="SmolLM2-135M-Instruct as a GGUF.")],
    work: Annotated[Path, typer.Option(help="Folder for models and logs.")] = Path(".bench"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure exports one after the other and print a table."""
    work = work.resolve()
    work.mkdir(exist_ok=True)
    rows = export_smollm2(work, gguf) + export_large(work)
    helped = help_seconds(work)
    if as_json:
        print(json.dumps({"exports": [asdict(row) for row in rows], "help_seconds": helped}))
        return
    Console().print(_table(rows))
    print(f"onekv --help: {helped:.2f} s (median of {HELP_RUNS})")


def _row(model: str, tool: str, cost: Cost, out: Path, weights: int) -> Export:
    return Export(model, tool, cost.seconds, cost.peak_bytes, folder_bytes(out), weights)


def _table(rows: list[Export]) -> Table:
    table = Table(title="Export to ONNX, fp32")
    for heading in ("model", "tool", "wall time", "peak RSS", "of fp32 weights", "output"):
        table.add_column(heading, justify="left" if heading in ("model", "tool") else "right")
    for row in rows:
        table.add_row(
            row.model,
            row.tool,
            f"{row.seconds:.0f} s",
            f"{row.peak_bytes / 2**20:.0f} MiB",
            f"{row.peak_bytes / row.fp32_weight_bytes:.2f}x",
            f"{row.output_bytes / 2**20:.0f} MiB",
        )
    return table


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment() -> dict[str, str]:
    """The same two threads for everybody, and no look-ups of models by name."""
    return os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    typer.run(main)

"""`make bench-executorch`: exports to ExecuTorch and what they run at, beside optimum-executorch.

SmolLM2-135M as 8da4w with two cached tensors, by both tools; the one-tensor sample model beside
its twin; and what the export of the paper's largest shape costs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from onekv.bench import decode_program, random_paper
from onekv.bench.measure import run_measured
from onekv.export.plan import parameters

CONTEXT, TOKENS = 8192, 16
DEPTHS = (0, 2048, 8192 - TOKENS)
SAMPLE_DEPTHS = (0, 256, 512 - TOKENS)
SAMPLES = Path("samples")


@dataclass(frozen=True)
class Exported:
    """One program. seconds and peak_rss (bytes) are its export's, 0 where not measured."""

    model: str
    tool: str
    program: Path
    seconds: float
    peak_rss: int

    @property
    def file_bytes(self) -> int:
        """Size of the program."""
        return self.program.stat().st_size

    @property
    def arena_bytes(self) -> int:
        """Memory that the program plans: its caches and activations."""
        from onekv.runtime.executorch_program import planned_bytes

        return planned_bytes(self.program)


@dataclass(frozen=True)
class Speed:
    """Decoded tokens per second of one program at one depth."""

    model: str
    tool: str
    depth: int
    tokens_per_second: float


def export_smollm2(work: Path, gguf: Path) -> tuple[Exported, ...]:
    """SmolLM2-135M, 8da4w in groups of 32, fp32 caches of 8,192 tokens, by both tools.

    The embedding, which is the head too, is int8 in onekv's default and 4 bits with an override;
    optimum stores it twice: 8 bits to look up, 4 bits to multiply.
    """
    model = work / "smollm2"
    if not model.exists():
        run_measured([_tool("onekv"), "convert", gguf, "-o", model], work / "convert.log")
    peer = (work / "optimum-executorch/bin/optimum-cli", "export", "executorch", "--model", model)
    recipe = "--task text-generation --recipe xnnpack --use_custom_sdpa --use_custom_kv_cache"
    numbers = f"--qlinear 8da4w --qembedding 8w --max_seq_len {CONTEXT} --output_dir"
    own = (_tool("onekv"), "export", model, "--to", "executorch", "--force")
    options = f"--weights int4 --cache fp32 --context {CONTEXT}".split()
    head = ("--override", "embed_tokens=int4")
    commands: dict[str, tuple[str | Path, ...]] = {
        "optimum-executorch": (*peer, *recipe.split(), *numbers.split()),
        "onekv": (*own, *options, "-o"),
        "onekv, 4-bit head": (*own, *options, *head, "-o"),
    }
    return tuple(
        _export("SmolLM2-135M", tool, (*command, work / _folder("smollm2", tool)), work)
        for tool, command in commands.items()
    )


def export_samples(work: Path) -> tuple[Exported, ...]:
    """The sample model and its twin with two tensors."""
    rows = []
    for name, tool in (("tiny-qkv", "two tensors"), ("tiny", "one tensor")):
        out = work / f"{name}-executorch"
        options = ["--to", "executorch", "--weights", "int4", "--cache", "fp32", "--force", "-o"]
        command: tuple[str | Path, ...] = (_tool("onekv"), "export", SAMPLES / name, *options, out)
        rows.append(_export("sample", tool, command, work))
    return tuple(rows)


def export_large(work: Path) -> Exported:
    """The paper's 1.2B Q-K=V shape as 8da4w, from a `.pt` of seeded random weights."""
    checkpoint, out = work / "paper-1.2b.pt", work / "paper-1.2b-executorch"
    if not checkpoint.exists():
        program = (sys.executable, "-m", "onekv.bench.random_paper", checkpoint)
        run_measured(program, work / "random.log")
    options = ["--to", "executorch", "--weights", "int4", "--no-tokenizer", "--force", "-o"]
    command: tuple[str | Path, ...] = (_tool("onekv"), "export", checkpoint, *options, out)
    return _export("paper 1.2B Q-K=V", "onekv", command, work)


def decode_speeds(exported: Exported, work: Path, depths: tuple[int, ...]) -> tuple[Speed, ...]:
    """Speeds of one program, each tool's in its own environment and ExecuTorch alike."""
    from onekv.runtime import executorch_library

    peer = exported.tool == "optimum-executorch"
    python = str(work / "optimum-executorch/bin/python") if peer else sys.executable
    libraries = ["llama" if peer else str(executorch_library.build()), "quantized"]
    command = [python, decode_program.__file__, str(exported.program), json.dumps(depths)]
    done = run_measured([*command, str(TOKENS), *libraries], work / "decode.log")
    seconds = json.loads(done.output.splitlines()[-1])
    return tuple(
        Speed(exported.model, exported.tool, depth, 1 / each)
        for depth, each in zip(depths, seconds)
    )


def main(
    gguf: Annotated[Path, typer.Option(help="SmolLM2-135M-Instruct as a GGUF.")],
    work: Annotated[Path, typer.Option(help="Folder for models and logs.")] = Path(".bench"),
    large: Annotated[bool, typer.Option(help="Export the paper's 1.2B shape too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export and measure, one after the other, and print tables."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    work = work.resolve()
    peers, samples = export_smollm2(work, gguf), export_samples(work)
    speeds = [speed for each in peers for speed in decode_speeds(each, work, DEPTHS)]
    speeds += [speed for each in samples for speed in decode_speeds(each, work, SAMPLE_DEPTHS)]
    exports = (*peers, *samples, *((export_large(work),) if large else ()))
    stream = _streaming_read()
    if as_json:
        rows = [asdict(row) | {"file": row.file_bytes, "arena": row.arena_bytes} for row in exports]
        result = {"exports": rows, "speeds": [asdict(s) for s in speeds], "stream_gb_s": stream}
        print(json.dumps(result, default=str))
        return
    console = Console()
    console.print(_export_table(exports))
    console.print(_speed_table(speeds))
    print(f"streaming read: {stream:.1f} GB/s")
    weights = 4 * parameters(random_paper.SPEC)
    for row in exports:
        if row.model.startswith("paper"):
            print(f"{row.model}: peak RSS {row.peak_rss / weights:.2f} times the fp32 weights")


def _export(model: str, tool: str, command: tuple[str | Path, ...], work: Path) -> Exported:
    """Run an export whose last word is its folder, and remember what it cost."""
    out = Path(command[-1])
    cost = run_measured(command, work / f"{out.name}.log")
    return Exported(model, tool, out / "model.pte", cost.seconds, cost.peak_rss)


def _folder(model: str, tool: str) -> str:
    return f"{model}-{tool}".replace(", ", "-").replace(" ", "-")


def _streaming_read() -> float:
    from onekv.bench.kernel.contest import streaming_read

    return streaming_read(os.cpu_count() or 1)


def _export_table(rows: tuple[Exported, ...]) -> Table:
    table = Table(title="Export to ExecuTorch, 8da4w")
    for heading in ("model", "tool", "wall time", "peak RSS", "program", "arenas"):
        table.add_column(heading, justify="left" if heading in ("model", "tool") else "right")
    for row in rows:
        sizes = (row.peak_rss, row.file_bytes, row.arena_bytes)
        mib = (f"{size / 2**20:.1f} MiB" for size in sizes)
        table.add_row(row.model, row.tool, f"{row.seconds:.0f} s", *mib)
    return table


def _speed_table(rows: list[Speed]) -> Table:
    """Speeds, and each as a multiple of the first tool's at the same depth."""
    table = Table(title="Decode")
    for heading in ("model", "tool", "depth", "tokens/s", "ratio"):
        table.add_column(heading, justify="left" if heading in ("model", "tool") else "right")
    first: dict[tuple[str, int], float] = {}
    for row in rows:
        base = first.setdefault((row.model, row.depth), row.tokens_per_second)
        speed, ratio = row.tokens_per_second, row.tokens_per_second / base
        table.add_row(row.model, row.tool, f"{row.depth:,}", f"{speed:.1f}", f"{ratio:.2f}")
    return table


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    typer.run(main)

"""What is exported: one model by both tools, a sample model and its twin, and the largest shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from onekv.bench import inputs, random_paper
from onekv.bench.kept import Kept
from onekv.bench.measure import run_measured

CONTEXT = 8192
PEER, OWN = "optimum-executorch", "onekv"
INT8_HEAD, FOUR_BIT_HEAD = "onekv, 8-bit head", "onekv, 4-bit head"
SAMPLES = Path("samples")

Words = tuple[str | Path, ...]


@dataclass(frozen=True)
class Exported:
    """One program. seconds, cpu_seconds and peak_rss (bytes) are what its export took."""

    model: str
    tool: str
    program: str
    seconds: float
    cpu_seconds: float
    peak_rss: int
    file_bytes: int
    arena_bytes: int


@dataclass(frozen=True)
class Export:
    """An export to run: the last word of its command is the folder that it writes."""

    model: str
    tool: str
    command: Words

    @property
    def program(self) -> Path:
        """The file that it makes."""
        return Path(self.command[-1]) / "model.pte"


def smollm2(work: Path, gguf: Path, context: int = CONTEXT) -> Iterator[Export]:
    """SmolLM2-135M, 8da4w in groups of 32, fp32 caches, by both tools.

    optimum multiplies a 4-bit head and looks up 8-bit rows. onekv rounds a tied matrix once: in 4
    bits it is compared with optimum's head; onekv's default of 8 bits is a row of its own.
    """
    model = inputs.smollm2(work, gguf)
    peer: Words = (work / f"{PEER}/bin/optimum-cli", "export", "executorch", "--model", model)
    recipe = "--task text-generation --recipe xnnpack --use_custom_sdpa --use_custom_kv_cache"
    numbers = f"--qlinear 8da4w --qembedding 8w --max_seq_len {context} --output_dir"
    options = f"--to executorch --force --weights int4 --cache fp32 --context {context}"
    own: Words = (inputs.ONEKV, "export", model, *options.split())
    commands: dict[str, Words] = {
        PEER: (*peer, *recipe.split(), *numbers.split()),
        FOUR_BIT_HEAD: (*own, "--override", "embed_tokens=int4", "-o"),
        INT8_HEAD: (*own, "-o"),
    }
    for tool, command in commands.items():
        folder = f"smollm2-{tool}-{context}".replace(", ", "-").replace(" ", "-")
        yield Export("SmolLM2-135M", tool, (*command, work / folder))


def samples(work: Path) -> Iterator[Export]:
    """The sample model and its twin with two tensors."""
    options = ["--to", "executorch", "--force", "--weights", "int4", "--cache", "fp32", "-o"]
    for name, tool in (("tiny-qkv", "two tensors"), ("tiny", "one tensor")):
        out = work / f"{name}-executorch"
        yield Export("sample", tool, (inputs.ONEKV, "export", SAMPLES / name, *options, out))


def largest(work: Path) -> Iterator[Export]:
    """The paper's 1.2B Q-K=V shape as 8da4w, from a `.pt` of seeded random weights."""
    checkpoint = inputs.largest(work)
    options = ["--to", "executorch", "--force", "--weights", "int4", "--no-tokenizer", "-o"]
    out = work / "paper-1.2b-executorch"
    command: Words = (inputs.ONEKV, "export", checkpoint, *options, out)
    yield Export(f"paper {random_paper.SPEC.variant} 1.2B", OWN, command)


def run_export(export: Export, kept: Kept, work: Path, say: Callable[[str], None]) -> Exported:
    """What an export takes and makes; not run again while both its cost and its file are kept."""
    from onekv.runtime.executorch_program import planned_bytes

    def measure() -> dict[str, object]:
        say(f"{export.model}: {export.tool} exports")
        cost = run_measured(export.command, work / f"{Path(export.command[-1]).name}.log")
        say(f"  {cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU")
        size, arenas = export.program.stat().st_size, planned_bytes(export.program)
        spent = (cost.seconds, cost.cpu_seconds, cost.peak_rss)
        return asdict(
            Exported(export.model, export.tool, str(export.program), *spent, size, arenas)
        )

    key = " ".join(map(str, export.command))
    result = kept.once(key, measure, again=not export.program.exists())
    return Exported(**{field.name: result[field.name] for field in fields(Exported)})

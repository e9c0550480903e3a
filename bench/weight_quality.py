"""What integer weights cost beside llama.cpp's formats, and what making them takes.

Bundles run in ONNX Runtime as they ship; llama.cpp in an environment of its own, on the same
tokens. What was measured is kept and not measured again, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from onekv.bench import inputs
from onekv.bench.kept import Kept
from onekv.bench.measure import Command, Cost, run_measured
from onekv.bench.weight_tables import (
    ALL_INT8,
    CALIBRATED,
    NEAREST,
    Making,
    Row,
    making_table,
    misses,
    quality_table,
)
from onekv.export.bundle import open_bundle
from onekv.export.plan import parameters, plan_weights_of

WINDOW, SAMPLE_TOKENS, SMOLLM2_TOKENS = 512, 8192, 16_384
TWIN, TEXT = Path("samples/tiny-qkv"), Path("samples/validation.txt")
SAMPLE = Path("samples/tiny")
_PEERS = Path(__file__).with_name("llama_cpp_quality.py")
_CALIBRATE = ("--calibrate", "shipped")
_OPTIONS = {
    NEAREST: ("--weights", "int4", "--cache", "fp32"),
    CALIBRATED: ("--weights", "int4", "--cache", "fp32", *_CALIBRATE),
    ALL_INT8: ("--weights", "int8", "--cache", "int8"),
}


@dataclass(frozen=True)
class Run:
    """Where exports, logs and measurements are kept."""

    work: Path
    kept: Kept

    def export(self, model: Path, form: str, *more: str | Path) -> tuple[Path, Making]:
        """A bundle, made unless it is there, and what its making took."""
        name = f"{model.stem}, {form}"
        out = self.work / name.replace(", ", "-").replace(" ", "-")

        def make() -> Mapping[str, Any]:
            options = (*_OPTIONS[form], *more, "--force", "-o", out)
            cost = self._run(f"{name}: export", (inputs.ONEKV, "export", model, *options))
            return {"seconds": cost.seconds, "peak_rss": cost.peak_rss}

        took = self.kept.once(f"{name}: export", make, again=not out.exists())
        manifest = open_bundle(out).manifest
        size = sum(path.stat().st_size for path in out.glob("model.*"))
        count = parameters(manifest.model)
        planned = int(plan_weights_of(manifest.model, manifest.options).bits * count / 8)
        spent = (took["seconds"], took["peak_rss"])
        return out, Making(model.stem, form, *spent, size, planned, 4 * count)

    def quality(self, model: Path, bundles: Mapping[str, Path], tokens: int) -> Iterator[Row]:
        """Each bundle against the model."""
        name = f"{model.stem}: {'; '.join(bundles)} on {tokens} tokens"
        options = ("--text", TEXT, "--window", str(WINDOW), "--tokens", str(tokens), "--json")
        command: Command = (inputs.ONEKV, "quality", *bundles.values(), model, *options)
        found = self.kept.once(name, lambda: json.loads(self._run(name, command).output))
        for form, row in zip(bundles, found["rows"]):
            cost = row["quality"]
            error = cost["increase_error"]
            figures = (row["bits_per_weight"], cost["increase"], error, cost["kl"], cost["top1"])
            yield Row(model.stem, form, *figures)

    def peers(self, model: Path, python: Path, tokens: int) -> Iterator[Row]:
        """llama.cpp's formats of a Llama folder against its own float16."""
        name = f"{model.stem}: llama.cpp on {tokens} tokens"
        found = self.kept.once(name, lambda: self._measure_peers(name, model, python, tokens))
        first, *rest = found["formats"]
        for row in rest:
            increase = row["perplexity"] / first["perplexity"] - 1
            figures = (row["bits_per_weight"], increase, None, row["kl"], row["top1"])
            yield Row(model.stem, row["format"], *figures)

    def _measure_peers(
        self, name: str, model: Path, python: Path, tokens: int
    ) -> Mapping[str, Any]:
        from onekv.export.tokenizer import text_tokens

        listed = self.work / f"{model.stem}-tokens.json"
        listed.write_text(json.dumps(text_tokens(model, TEXT, tokens)))
        command = (python, _PEERS, model, listed, "--window", str(WINDOW))
        return {"formats": json.loads(self._run(name, command).output)}

    def _run(self, name: str, command: Command) -> Cost:
        print(name, file=sys.stderr, flush=True)
        log = "".join(letter if letter.isalnum() else "-" for letter in name)
        return run_measured(command, self.work / f"{log}.log")


def main(
    gguf: Annotated[Path, typer.Option(help="SmolLM2-135M-Instruct as a GGUF.")],
    llama_cpp: Annotated[Path, typer.Option(help="The Python that has llama-cpp-python.")],
    work: Annotated[Path, typer.Option(help="Folder for models, logs and results.")] = Path(
        ".bench"
    ),
    large: Annotated[bool, typer.Option(help="Export the paper's 1.2B shape too.")] = True,
    again: Annotated[bool, typer.Option(help="Forget what was measured before.")] = False,
) -> None:
    """Export and measure, one after the other, and print tables."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = work.resolve() / "quality"
    run = Run(folder, Kept(folder / "kept.jsonl"))
    if again:
        run.kept.path.unlink(missing_ok=True)
    smollm2 = inputs.smollm2(work.resolve(), gguf)
    wanted = ((TWIN, tuple(_OPTIONS)), (SAMPLE, tuple(_OPTIONS)), (smollm2, (ALL_INT8,)))
    rows: list[Row] = []
    makings: list[Making] = []
    for model, forms in wanted:
        made = {form: run.export(model, form) for form in forms}
        makings += [making for _, making in made.values()]
        tokens = SMOLLM2_TOKENS if model == smollm2 else SAMPLE_TOKENS
        rows += run.quality(model, {form: bundle for form, (bundle, _) in made.items()}, tokens)
        if model == TWIN:
            rows += run.peers(model, llama_cpp, tokens)
    largest: Sequence[str] = (NEAREST, CALIBRATED) if large else ()
    for form in largest:
        # A tokenizer of fewer tokens than the model has: calibration needs any text's ids.
        makings.append(run.export(inputs.largest(work.resolve()), form, "--tokenizer", smollm2)[1])
    console = Console()
    console.print(quality_table(rows))
    console.print(making_table(makings))
    missed = list(misses(rows, makings, inputs.LARGEST))
    print(f"goals missed: {len(missed)}")
    for line in missed:
        print(f"  {line}")


if __name__ == "__main__":
    typer.run(main)

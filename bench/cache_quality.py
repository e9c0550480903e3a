"""`make bench-quality`: what int8 and int4 rows cost one shared tensor and its two-tensor twin.

Rows are rounded as bundles round them (two records per shared row, one per key and per value),
with and without the folding that each model allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from onekv.errors import UsageError
from onekv.export.checkpoints import open_checkpoint
from onekv.export.model.decoder import build_decoder
from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.plan import cache_per_token
from onekv.export.tokenizer import text_tokens
from onekv.quantize.compare import Quality, compare
from onekv.quantize.fold import Heads, fold_bases, fold_bias, hadamard_bases, scaling_bases
from onekv.quantize.numbers import Number
from onekv.runtime.rows import RowFormat

SAMPLES = (Path("samples/tiny"), Path("samples/tiny-qkv"))


@dataclass(frozen=True)
class Row:
    """One model in one cache format with one folding."""

    model: str
    variant: str
    cache: Number
    folding: str
    bytes_per_token: int
    quality: Quality


def foldings(spec: ModelSpec, state: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """The model's weights as they are, and in every folded form that it allows."""
    forms: dict[str, Mapping[str, Tensor]] = {"none": state}
    if not spec.sharing.one_tensor or spec.sharing.query_is_key:
        return forms
    heads = Heads(spec.layers, spec.heads, spec.kv_heads, spec.head_dim, spec.rope is not None)
    if spec.rope is None:
        state = forms["bias"] = fold_bias(state, heads)
        forms["bias, Hadamard"] = fold_bases(state, heads, hadamard_bases(heads))
    forms["scaling"] = fold_bases(state, heads, scaling_bases(state, heads))
    return forms


def measure(model: Path, text: Path, window: int, limit: int) -> list[Row]:
    """Every folding in int8 and int4 rows, against the model with float32 rows."""
    checkpoint = open_checkpoint(model)
    spec = checkpoint.spec
    state = {name: tensor.float() for name, tensor in checkpoint.load().items()}
    tokenizer = checkpoint.tokenizer_dir
    if tokenizer is None:
        raise UsageError(f"{model} has no tokenizer", "Put its tokenizer.json beside it.")
    tokens = text_tokens(tokenizer, text, limit)
    parts = 2 if spec.sharing.one_tensor else 1
    forms = foldings(spec, state)
    asked = [(form, number) for form in forms for number in (Number.INT8, Number.INT4)]
    sessions = [
        DecoderSession(
            build_decoder(spec, dict(forms[form]), window), window, RowFormat(number), parts
        )
        for form, number in asked
    ]
    source = DecoderSession(build_decoder(spec, state, window), window)
    found = compare(sessions, source, tokens, window)
    return [
        Row(
            checkpoint.source,
            spec.variant,
            number,
            form,
            cache_per_token(spec, number, parts),
            quality,
        )
        for (form, number), quality in zip(asked, found)
    ]


def main(
    models: Annotated[list[Path] | None, typer.Argument(help="Default: the two samples.")] = None,
    text: Annotated[Path, typer.Option()] = Path("samples/validation.txt"),
    window: Annotated[int, typer.Option()] = 512,
    tokens: Annotated[int, typer.Option()] = 16_384,
    output: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Print the table."""
    rows = [row for model in models or SAMPLES for row in measure(model, text, window, tokens)]
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    table = Table("model", "attention", "rows", "folding", "B/token", "perplexity", "KL", "top-1")
    for row in rows:
        found = row.quality
        assert found.increase is not None and found.increase_error is not None
        table.add_row(
            row.model,
            row.variant,
            row.cache,
            row.folding,
            str(row.bytes_per_token),
            f"{found.increase:+.2%} ±{100 * found.increase_error:.2f}",
            f"{found.kl:.5f}",
            f"{found.top1:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

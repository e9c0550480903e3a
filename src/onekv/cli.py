"""The command line: each command resolves its options, calls one function, and shows the result.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.errors import OnekvError
from onekv.export.options import Number, Profile, Target

if TYPE_CHECKING:
    from onekv.export.manifest import Manifest, Parity
    from onekv.export.pipeline import ExportPlan

app = typer.Typer(
    help="Put transformers that keep one tensor per token and layer on phones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PACKAGE = ".mlpackage"

Model = Annotated[
    Path, typer.Argument(help="A .pt of the paper, a Hugging Face folder, or a .gguf.")
]
BundlePath = Annotated[Path, typer.Argument(help="A folder that `onekv export` wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output folder.")]
ContextLength = Annotated[
    int | None, typer.Option(help="Most tokens, prompt and answer together. Default: the model's.")
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show a traceback when something fails.")] = False,
) -> None:
    _State.debug = debug


class _State:
    debug = False


@app.command()
def export(
    model: Model,
    to: Annotated[Target, typer.Option(help="The runtime to export for.")] = Target.ONNX,
    context: ContextLength = None,
    weights: Annotated[
        Number | None, typer.Option(help="Number format of the weights. Default: the target's.")
    ] = None,
    cache: Annotated[
        Number | None, typer.Option(help="Number format of the cache. Default: the weights'.")
    ] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="Compute unit of a Core ML package. Default: gpu.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Bundle folder.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of the tokenizer.")] = None,
    no_tokenizer: Annotated[bool, typer.Option(help="Write a bundle of token ids only.")] = False,
    one_tensor: Annotated[
        bool, typer.Option(help="Refuse a model whose keys and values are not one tensor.")
    ] = False,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint into a bundle, checked against the source model."""
    from onekv.export.bundle import check_free
    from onekv.export.checkpoints import open_checkpoint, require_one_tensor
    from onekv.export.options import resolve_options
    from onekv.export.pipeline import plan_export, run_export
    from onekv.terminal import StageReporter

    folder = output or Path(f"{model.stem if model.is_file() else model.name}-{to}")
    if not dry_run:
        check_free(folder, force)
    checkpoint = open_checkpoint(model)
    if one_tensor:
        require_one_tensor(checkpoint)
    options = resolve_options(checkpoint.spec, to, context, weights, cache, profile)
    plan = plan_export(checkpoint, options, tokenizer, need_tokenizer=not no_tokenizer)
    if dry_run:
        _show_plan(plan, folder, as_json)
        return
    bundle = run_export(plan, folder, force, StageReporter())
    _show_bundle(bundle.manifest, as_json)
    if not as_json:
        _print(f"wrote {folder}")


@app.command()
def plan(
    model: Model,
    context: ContextLength = None,
    weights: Annotated[
        Number | None, typer.Option(help="Number format of the weights. Default: the target's.")
    ] = None,
    cache: Annotated[Number | None, typer.Option(help="Number format of the cache.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the memory that a model will need, from its configuration alone."""
    from onekv.export.checkpoints import read_spec
    from onekv.export.options import resolve_options
    from onekv.export.plan import compare_caches, plan_memory

    spec = read_spec(model)
    options = resolve_options(spec, Target.ONNX, context, weights, cache)
    memory, rows = plan_memory(spec, options), compare_caches(spec, options.context)
    if as_json:
        _print_json({"memory": memory, "caches": rows, "options": options, "model": spec})
        return
    from onekv.terminal import cache_table, memory_lines

    _print(cache_table(rows, options.context))
    for line in memory_lines(memory, options):
        _print(line)


@app.command()
def run(
    bundle: BundlePath,
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this mass.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled text repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stream text from a bundle, then tell its speed and its cache."""
    from onekv.export.bundle import open_bundle
    from onekv.export.tokenizer import load_tokenizer
    from onekv.runtime.generate import Generation, Sampling, generate, stream_text
    from onekv.runtime.sessions import open_session
    from onekv.terminal import generation_line

    sampling = Sampling(temperature, top_p, seed)
    opened = open_bundle(bundle)
    manifest, tokenizer = opened.manifest, load_tokenizer(bundle)
    ids = tokenizer.encode(prompt).ids
    session = open_session(manifest.options.target, opened.entry, manifest.options.context)
    result = Generation(prompt_tokens=len(ids))
    tokens = generate(session, result, ids, sampling, manifest.eos_token_ids, max_tokens)
    pieces = []
    for piece in stream_text(tokenizer, ids, tokens):
        pieces.append(piece)
        if not as_json:
            typer.echo(piece, nl=False)
    if as_json:
        _print_json({"text": "".join(pieces), "generation": result, "cache": session.cache_bytes})
        return
    typer.echo()
    typer.echo(generation_line(result, session), err=True)


@app.command()
def verify(
    bundle: BundlePath,
    source: Annotated[Path | None, typer.Option(help="The model that it was made from.")] = None,
    text: Annotated[Path | None, typer.Option(help="A text whose perplexity is compared.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with its source model, and record the result in it."""
    from onekv.export.reverify import verify_bundle
    from onekv.terminal import StageReporter

    parity = verify_bundle(bundle, source, text, StageReporter())
    if as_json:
        _print_json(parity)
    else:
        _show_parity(parity)
    if not parity.passed:
        raise typer.Exit(1)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, a model as for export, or a .mlpackage.")],
    as_json: AsJson = False,
) -> None:
    """Show what a bundle, a checkpoint or a Core ML package holds."""
    from onekv.export.bundle import is_bundle, open_bundle
    from onekv.export.checkpoints import open_checkpoint
    from onekv.terminal import checkpoint_table

    if is_bundle(path):
        bundle = open_bundle(path)
        _show_bundle(bundle.manifest, as_json)
        if bundle.entry.suffix == _PACKAGE and not as_json:
            _show_package(bundle.entry, as_json)
        return
    if path.suffix == _PACKAGE:
        _show_package(path, as_json)
        return
    checkpoint = open_checkpoint(path)
    if as_json:
        _print_json({"model": checkpoint.spec, "sharing_evidence": checkpoint.sharing_evidence})
    else:
        _print(checkpoint_table(checkpoint))


@app.command()
def convert(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    force: Force = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder that transformers loads."""
    from onekv.export.checkpoints import open_checkpoint
    from onekv.export.checkpoints.convert import convert as write_folder

    write_folder(open_checkpoint(model), output, force)
    _print(f"wrote {output}")


def main() -> None:
    """The entry point: errors become one message and an exit code."""
    # A termination unwinds like an interrupt, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _errors_shown():
        app()


@contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except OnekvError as error:
        if _State.debug:
            raise
        typer.secho(f"error: {error.message}", err=True, fg="red")
        if error.fix:
            typer.echo(error.fix, err=True)
        sys.exit(error.exit_code)


def _show_plan(plan: ExportPlan, folder: Path, as_json: bool) -> None:
    from onekv.terminal import plan_table

    if as_json:
        _print_json({**plan.summary(), "output": folder.name})
    else:
        _print(plan_table(plan, folder))


def _show_bundle(manifest: Manifest, as_json: bool) -> None:
    from onekv.export.plan import compare_caches
    from onekv.terminal import cache_table, manifest_table

    if as_json:
        _print_json(manifest)
        return
    context = manifest.options.context
    _print(manifest_table(manifest))
    _print(cache_table(compare_caches(manifest.model, context), context))
    if manifest.parity is not None:
        _show_parity(manifest.parity)


def _show_package(path: Path, as_json: bool) -> None:
    from onekv.runtime.mil import read_package
    from onekv.runtime.mil.summary import summarise
    from onekv.terminal import package_table

    summary = summarise(read_package(path))
    if as_json:
        _print_json(summary)
    else:
        _print(package_table(summary))


def _show_parity(parity: Parity) -> None:
    from onekv.terminal import parity_lines, parity_table

    _print(parity_table(parity))
    for line in parity_lines(parity):
        _print(line)


def _print(what: object) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(what, str)).print(what)


def _print_json(what: object) -> None:
    from pydantic_core import to_jsonable_python

    typer.echo(json.dumps(to_jsonable_python(what), indent=2))

"""onekv run"""

from __future__ import annotations

from typing import Annotated

import typer

from onekv.commands.common import AsJson, BundlePath, OperatorForm, echo_json
from onekv.export.options import Ops


def run(
    bundle: BundlePath,
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this mass.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled text repeatable.")] = None,
    ops: OperatorForm = None,
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
    options = manifest.options
    kernel = None if ops is None else ops is Ops.ONEKV
    session = open_session(options.target, opened.entry, options.context, kernel)
    result = Generation(prompt_tokens=len(ids))
    tokens = generate(session, result, ids, sampling, manifest.eos_token_ids, max_tokens)
    pieces = []
    for piece in stream_text(tokenizer, ids, tokens):
        pieces.append(piece)
        if not as_json:
            typer.echo(piece, nl=False)
    if as_json:
        facts = {"cache": session.cache_bytes, "operators": session.operators}
        echo_json({"text": "".join(pieces), "generation": result, **facts})
        return
    typer.echo()
    typer.echo(generation_line(result, session), err=True)

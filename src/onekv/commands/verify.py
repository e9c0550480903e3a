"""onekv verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onekv.commands.common import AsJson, BundlePath, echo, echo_json

if TYPE_CHECKING:
    from onekv.export.manifest import Parity


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
        echo_json(parity)
    else:
        show_parity(parity)
    if not parity.passed:
        raise typer.Exit(1)


def show_parity(parity: Parity) -> None:
    """What a verification found, and its verdict."""
    from onekv.terminal import parity_lines, parity_table

    echo(parity_table(parity))
    for line in parity_lines(parity):
        echo(line)

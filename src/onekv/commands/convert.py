"""onekv convert"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onekv.commands.common import Force, Model, echo


def convert(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    force: Force = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder that transformers loads."""
    from onekv.export.checkpoints import open_checkpoint
    from onekv.export.checkpoints.convert import convert as write_folder

    write_folder(open_checkpoint(model), output, force)
    echo(f"wrote {output}")

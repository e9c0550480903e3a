"""What commands share: the options that mean the same everywhere, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onekv.export.options import Ops, Profile
from onekv.quantize.numbers import Number
from onekv.runtime.platforms import Platform

Model = Annotated[
    Path, typer.Argument(help="A .pt of the paper, a Hugging Face folder, or a .gguf.")
]
BundlePath = Annotated[Path, typer.Argument(help="A folder that `onekv export` wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output folder.")]
ContextLength = Annotated[
    int | None, typer.Option(help="Most tokens, prompt and answer together. Default: the model's.")
]
Weights = Annotated[
    Number | None, typer.Option(help="Number format of the weights. Default: the target's.")
]
Cache = Annotated[
    Number | None, typer.Option(help="Number format of the cache. Default: the weights'.")
]
Unit = Annotated[
    Profile | None,
    typer.Option("--profile", help="Compute unit that the file is for. Default: the target's."),
]
GroupSize = Annotated[
    int | None,
    typer.Option(
        "--group", min=1, help="Columns of a weight that share a scale. Default: 32 in int4."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--override", help="Another format for some weights: 'layers.0.*=int8'. Repeatable."
    ),
]
OperatorForm = Annotated[
    Ops | None,
    typer.Option("--ops", help="Our operator, or the runtime's own operators alone."),
]
DeploymentTarget = Annotated[
    str | None,
    typer.Option(help="Oldest system that a Core ML package runs on, such as iOS18 or iOS26."),
]
Platforms = Annotated[
    list[Platform] | None,
    typer.Option("--platform", help="Ship onekv's library for this platform. Repeatable."),
]


def echo(what: object) -> None:
    """Print a line or a table."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(what, str)).print(what)


def echo_json(what: object) -> None:
    """Print a result for scripts."""
    from pydantic_core import to_jsonable_python

    typer.echo(json.dumps(to_jsonable_python(what), indent=2))

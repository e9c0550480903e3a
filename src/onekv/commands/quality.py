"""onekv quality"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onekv.commands.common import AsJson, echo, echo_json
from onekv.export.options import Target


def quality(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Bundles, and the model they were made from; or a model alone."),
    ],
    text: Annotated[Path, typer.Option(help="A UTF-8 text to measure on.")],
    window: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Context length to measure at. Repeatable. Default: 128, 512."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Measure on so many tokens. Default: all.")
    ] = None,
    to: Annotated[Target, typer.Option(help="The runtime, for a model alone.")] = Target.ONNX,
    try_: Annotated[
        list[str] | None,
        typer.Option("--try", help="WEIGHTS/CACHE for a model alone, as int4/int8. Repeatable."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw quality against size: .png, .svg or .pdf.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what number formats cost: perplexity, KL and top-1 against the source model."""
    from onekv.export.quality import FORMATS, measure_quality
    from onekv.terminal import StageReporter, quality_table

    report = measure_quality(
        paths, text, window or [128, 512], tokens, to, try_ or FORMATS, StageReporter()
    )
    if plot is not None:
        from onekv.export.quality_plot import plot_quality

        plot_quality(report, plot)
    if as_json:
        echo_json(report)
    else:
        echo(quality_table(report))

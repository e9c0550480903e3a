"""onekv report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onekv.commands.common import echo


def report(
    results: Annotated[list[Path], typer.Argument(help="Files that `onekv bench` wrote.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="A page (.html), or its tables alone (.md, .csv)."),
    ] = Path("report.html"),
) -> None:
    """Turn measurements into one page: memory by phase, plan and measurement, every iteration."""
    from onekv.bench.report.page import write_report

    written = write_report(results, output)
    echo(f"wrote {output}: {', '.join(section.title for section in written.sections)}")

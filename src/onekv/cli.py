"""The command line: the list of commands, and how errors end.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from onekv.commands.bench import bench
from onekv.commands.convert import convert
from onekv.commands.export import export
from onekv.commands.inspect import inspect
from onekv.commands.plan import plan
from onekv.commands.quality import quality
from onekv.commands.report import report
from onekv.commands.run import run
from onekv.commands.verify import verify
from onekv.errors import OnekvError

app = typer.Typer(
    help="Put transformers that keep one tensor per token and layer on phones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (export, plan, run, verify, quality, inspect, bench, report, convert):
    app.command()(_command)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show a traceback when something fails.")] = False,
) -> None:
    _State.debug = debug


class _State:
    debug = False


def main() -> None:
    """The entry point."""
    run_command(sys.argv[1:])


def run_command(arguments: Sequence[str]) -> None:
    """Run one command and end the process: errors become one message and an exit code."""
    # A termination unwinds like an interrupt, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _errors_shown():
        app(arguments, prog_name="onekv")


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

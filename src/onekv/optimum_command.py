"""`optimum-cli export onekv`: the export command, offered inside optimum's command line.

The options are read from onekv's own command, so both always take the same ones.
"""

from __future__ import annotations

import enum
import inspect
import typing
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from typer.models import ArgumentInfo, OptionInfo

from onekv.cli import run_command
from onekv.commands.export import export


class OnekvExportCommand(BaseOptimumCLICommand):  # type: ignore[misc]
    """Registered below `optimum-cli export`; its result is that of `onekv export`."""

    COMMAND = CommandInfo(
        name="onekv", help="Export a model that caches one tensor per layer, for phones."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the options of `onekv export`."""
        for parameter in _parameters():
            parameter.declare(parser)

    def run(self) -> None:
        """Run `onekv export`; an error ends the process with its exit code."""
        given = vars(self.args)
        options = [
            word for parameter in _parameters() for word in parameter.words(given[parameter.name])
        ]
        run_command(["export", *options])


@dataclass(frozen=True)
class _Parameter:
    """One parameter of the command; `flags` is empty for a positional one."""

    name: str
    flags: tuple[str, ...]
    kinds: tuple[type, ...]
    repeated: bool
    help: str

    def declare(self, parser: ArgumentParser) -> None:
        if not self.flags:
            parser.add_argument(self.name, help=self.help)
        elif bool in self.kinds:
            parser.add_argument(*self.flags, dest=self.name, action="store_true", help=self.help)
        else:
            choices = [str(member) for kind in self.kinds for member in _members(kind)]
            parser.add_argument(
                *self.flags,
                dest=self.name,
                action="append" if self.repeated else "store",
                choices=choices or None,
                metavar=None if choices else self.name.upper(),
                help=self.help,
            )

    def words(self, value: object) -> list[str]:
        """The words of a command line that give this value; none for what was left out."""
        if value is None or value is False:
            return []
        if value is True:
            return [self.flags[-1]]
        values = value if isinstance(value, list) else [value]
        return [f"{self.flags[-1]}={one}" if self.flags else str(one) for one in values]


def _members(kind: type) -> list[enum.Enum]:
    return list(kind) if issubclass(kind, enum.Enum) else []


def _parameters() -> Iterator[_Parameter]:
    hints = typing.get_type_hints(export, include_extras=True)
    for name in inspect.signature(export).parameters:
        annotation, info = typing.get_args(hints[name])
        assert isinstance(info, OptionInfo | ArgumentInfo)
        # Inside Annotated, typer keeps the first name where a default would stand.
        names = (info.default, *(info.param_decls or ()))
        declared = [word for word in names if isinstance(word, str) and word.startswith("-")]
        flags = declared or [f"--{name.replace('_', '-')}"]
        kinds = tuple(_plain_types(annotation))
        yield _Parameter(
            name=name,
            flags=() if isinstance(info, ArgumentInfo) else tuple(flags),
            kinds=kinds,
            repeated=list in (annotation, typing.get_origin(annotation), *kinds),
            help=(info.help or "").replace("%", "%%"),
        )


def _plain_types(annotation: object) -> Iterator[type]:
    """`int | None` holds int; `list[Path]` holds list and Path."""
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and origin is list:
        yield list
    for part in typing.get_args(annotation) or (annotation,):
        if typing.get_args(part):
            yield from _plain_types(part)
        elif isinstance(part, type) and part is not type(None):
            yield part

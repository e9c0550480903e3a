"""The errors that onekv shows to a person: what is wrong, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class OnekvError(Exception):
    """A failure whose cause is the input or the machine, not a defect of onekv.

    `message` names the thing and says why; `fix` says what to do. The command
    line prints both and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return self.message if self.fix is None else f"{self.message}\n{self.fix}"


class UsageError(OnekvError):
    """The call itself is wrong: options that contradict each other or the model."""

    exit_code = 2


class CheckpointError(OnekvError):
    """A checkpoint that is corrupt, hostile, unknown, or contradicts its configuration."""


class BundleError(OnekvError):
    """A bundle that is incomplete, was changed after export, or has an unknown schema."""


class ParityError(OnekvError):
    """An exported file that does not compute its source model."""


def first_problem(error: ValidationError, whole: str) -> str:
    """Where a record is wrong first, and how; `whole` names the record itself."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or whole
    return f"{place}: {first['msg']}"

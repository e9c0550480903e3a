"""Checked values out of a configuration that nobody vouches for."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from onekv.errors import CheckpointError

# No published model comes near; a larger number is a corrupt or hostile file.
LARGEST = 2**24

_Choice = TypeVar("_Choice", bound=enum.StrEnum)


def integer(
    config: Mapping[str, Any], key: str, default: int | None = None, largest: int = LARGEST
) -> int:
    """A whole number from 1 to `largest`; an absent or null key has the default."""
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise CheckpointError(f"the configuration has no {key}")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise _refused(key, value, f"it must be a whole number from 1 to {largest}")
    return value


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """A finite number above zero; an absent or null key has the default."""
    value = config.get(key)
    value = default if value is None else value
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not 0 < value < math.inf:
        raise _refused(key, value, "it must be a number above zero")
    return float(value)


def flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """True or false; an absent or null key has the default."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise _refused(key, value, "it must be true or false")
    return value


def choice(config: Mapping[str, Any], key: str, default: _Choice) -> _Choice:
    """One of the words of the default's enumeration."""
    value = config.get(key, default)
    kind = type(default)
    if value not in list(kind):
        raise _refused(key, value, f"it must be one of {', '.join(kind)}")
    return kind(value)


def _refused(key: str, value: object, rule: str) -> CheckpointError:
    shown = repr(value) if len(repr(value)) < 60 else repr(value)[:60] + "..."
    return CheckpointError(f"the configuration's {key} is {shown}; {rule}")

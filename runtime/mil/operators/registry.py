"""The table that the operator modules fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}


def operator(function: Operator) -> Operator:
    """Register a function under its own name, less a final underscore."""
    OPERATORS[function.__name__.removesuffix("_")] = function
    return function


def integers(values: Any) -> tuple[int, ...]:
    """A shape, permutation or list of axes as plain integers."""
    return tuple(int(value) for value in np.asarray(values).reshape(-1))

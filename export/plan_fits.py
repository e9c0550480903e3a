"""The longest context that fits into a budget, by bisection over the plan."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions
from onekv.export.plan import plan_process
from onekv.export.targets import target_rules

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}


@dataclass(frozen=True)
class Fit:
    """`context` is None when not even the shortest one fits; `needed` is then what that takes.

    `by_positions`: the budget would hold more, the model has no more positions.
    """

    budget: int
    context: int | None
    needed: int
    by_positions: bool


def longest_context(spec: ModelSpec, options: ExportOptions, budget: int) -> Fit:
    """The longest context whose plan stays within `budget` bytes, up to the model's positions."""
    multiple = target_rules(options.target).context_multiple
    low, high = 0, spec.max_positions // multiple
    shortest = max(2, multiple)
    if _total(spec, options, shortest) > budget:
        return Fit(budget, None, _total(spec, options, shortest), False)
    while low < high:
        middle = (low + high + 1) // 2
        if _total(spec, options, max(shortest, middle * multiple)) <= budget:
            low = middle
        else:
            high = middle - 1
    context = max(shortest, low * multiple)
    by_positions = low == spec.max_positions // multiple
    return Fit(budget, context, _total(spec, options, context), by_positions)


def parse_bytes(text: str) -> int:
    """Bytes of "2GiB", "1.5 GB", "800MB" or a plain number; GB is 10^9 and GiB is 2^30.

    Raises:
        UsageError: the text is no size above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = _UNITS.get(found[2]) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise UsageError(f"{text!r} is no size", "Give it as 2GiB, 1.5GB or 800MB.")
    return int(float(found[1]) * unit)


def _total(spec: ModelSpec, options: ExportOptions, context: int) -> int:
    return plan_process(spec, replace(options, context=context)).total

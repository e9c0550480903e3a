"""The cache alone: bytes that each token adds to a process, by least squares over fresh ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onekv.bench.planned import PAGE
from onekv.bench.records import BundleInfo, Iteration, Phase, Purpose
from onekv.bench.suite import SuiteOptions
from onekv.errors import UsageError
from onekv.export.plan import MemoryPlan

_POINTS = 5
_REPETITIONS = 3
# The longest prefill step, the prompt and what is decoded: the same at all depths.
_STEP = 64


@dataclass(frozen=True)
class Slope:
    """bytes_per_token and bytes at no token; worst: the largest distance of a point, in bytes."""

    bundle: BundleInfo
    bytes_per_token: float
    intercept: float
    worst: float
    planned: int | None
    points: tuple[tuple[int, int], ...]

    @property
    def off_plan(self) -> float | None:
        """By how much of the plan the slope is above it."""
        return None if self.planned is None else self.bytes_per_token / self.planned - 1


def piece_bytes(plan: MemoryPlan) -> float:
    """Bytes that a token adds to each place of memory where its rows lie."""
    return plan.cache_per_token / plan.cache_pieces


def slope_options(context: int, base: SuiteOptions, piece: float) -> SuiteOptions:
    """`base` with depths that spread over a context, everything else being equal at each.

    At each the rows, `piece` bytes of a token in one place, end where a page does: half-filled
    pages would be counted as rows.

    Raises:
        UsageError: the context is too short to tell a slope.
    """
    # The last of the decoded tokens is never fed.
    shortest = 2 * _STEP
    first, last = math.ceil(shortest * piece / PAGE), int(context * piece // PAGE)
    ends = [int(page * PAGE // piece) for page in range(first, last + 1)]
    ends = [end for end in ends if end >= shortest]
    if context < 2 * shortest or len(ends) < 2:
        raise UsageError(
            f"a context of {context} tokens is too short for a slope",
            f"Export with a --context of {4 * _STEP} or more.",
        )
    chosen = np.unique(np.linspace(0, len(ends) - 1, _POINTS).astype(int))
    return replace(
        base,
        purpose=Purpose.SLOPE,
        depths=tuple(ends[place] - shortest for place in chosen),
        prompt_tokens=_STEP,
        decode_tokens=_STEP + 1,
        chunk=_STEP,
        warm_ups=0,
        repetitions=_REPETITIONS,
    )


def fit_slopes(records: Iterable[Iteration]) -> list[Slope]:
    """One slope for each bundle that was run at two depths or more."""
    points: dict[BundleInfo, list[Iteration]] = {}
    for record in records:
        if record.ok and record.purpose is Purpose.SLOPE and not record.warm_up:
            points.setdefault(record.bundle, []).append(record)
    return [
        _fit(bundle, of_bundle)
        for bundle, of_bundle in points.items()
        if len({record.options.tokens for record in of_bundle}) > 1
    ]


def _fit(bundle: BundleInfo, records: Sequence[Iteration]) -> Slope:
    points = []
    for record in records:
        decode = record.phase(Phase.DECODE)
        if decode is not None and decode.end.anonymous is not None:
            points.append((record.options.tokens, decode.end.anonymous))
    tokens, held = np.array(points, dtype=np.float64).T
    gradient, intercept = np.polyfit(tokens, held, 1)
    planned = records[0].planned
    return Slope(
        bundle=bundle,
        bytes_per_token=float(gradient),
        intercept=float(intercept),
        worst=float(np.abs(gradient * tokens + intercept - held).max()),
        planned=None if planned is None else planned.cache_per_token,
        points=tuple(sorted(points)),
    )

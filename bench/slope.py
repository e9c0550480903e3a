"""The cache alone: bytes that each token adds to a process, by least squares over fresh ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onekv.bench.records import BundleInfo, Iteration, Phase, Purpose
from onekv.errors import UsageError
from onekv.runtime.generate import PREFILL_CHUNK

_POINTS = 5
# So many rows of floats fill whole pages of 16 KiB from a head_dim of 64 on.
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


def slope_depths(context: int, prompt_tokens: int, decode_tokens: int) -> tuple[int, ...]:
    """Depths that spread over a context, so that the tokens of each fill whole pages.

    Each has a prefill step of full length in it, whose activations are then the same in all.

    Raises:
        UsageError: the context is too short to tell a slope.
    """
    steps = context // _STEP
    fed = prompt_tokens + max(0, decode_tokens - 1)
    least = -(-(max(prompt_tokens, PREFILL_CHUNK) + fed - prompt_tokens) // _STEP)
    if steps < least + 2:
        raise UsageError(
            f"a context of {context} tokens is too short for a slope",
            f"Export with a --context of {(least + 2) * _STEP} or more.",
        )
    ends = np.unique(np.linspace(least, steps, _POINTS).astype(int))
    return tuple(int(end) * _STEP - fed for end in ends)


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

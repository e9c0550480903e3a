"""What is compared, and how contenders are timed: in turn within one run, by medians."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Step = Callable[[], object]
"""One call of a contender."""

BEYOND_CACHES = 150_000_000
"""Bytes of caches that a contender goes through in turn, so that they come from memory."""


@dataclass(frozen=True)
class Shape:
    """One call: query heads, kv heads, head_dim, tokens cached before it, threads, new tokens."""

    heads: int
    kv_heads: int
    head_dim: int
    context: int
    threads: int
    new_tokens: int = 1

    @property
    def length(self) -> int:
        """Rows that a cache needs."""
        return self.context + self.new_tokens

    def copies(self, cache_bytes: int) -> int:
        """How many caches a contender goes through: more than one only beyond the CPU's own."""
        return max(1, min(8, BEYOND_CACHES // cache_bytes)) if self.context >= 8192 else 1


def interleaved_medians(steps: dict[str, list[Step]], seconds: float) -> dict[str, float]:
    """Median microseconds of each contender, which take turns; `seconds` are for each."""
    turns = {name: itertools.cycle(calls) for name, calls in steps.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for every in steps.values():
        for call in every:
            call()  # first calls allocate and fault pages in
    end = time.monotonic() + seconds * len(steps)
    while time.monotonic() < end or not all(taken.values()):
        for name, calls in turns.items():
            for _ in range(3):
                step = next(calls)
                start = time.perf_counter()
                step()
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) * 1e6 for name, times in taken.items()}


def streaming_reads(threads: int) -> list[float]:
    """GB/s at which `threads` threads read memory that no cache holds, several times over."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    data, rates = _beyond_caches(), []
    for _ in range(7):
        start = time.perf_counter()
        data.sum()
        rates.append(data.numel() * data.element_size() / (time.perf_counter() - start) / 1e9)
    torch.set_num_threads(before)
    return rates


def streaming_read(threads: int) -> float:
    """The median of `streaming_reads`."""
    return float(np.median(streaming_reads(threads)))


@functools.cache
def _beyond_caches() -> torch.Tensor:
    # Every page differs: a host that merges equal pages would serve them from its caches.
    return torch.arange(100_000_000, dtype=torch.float32)

"""Seeded conversations through one layer's cache, for the tests of the operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from onekv.runtime.reference import attend, attend_kv
from tests.unit import restatement

F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """A conversation of several chunks through one layer's cache, with seeded random rows."""

    chunks: tuple[int, ...] = (3, 1, 1)
    batch: int = 2
    kv_heads: int = 2
    group: int = 2
    dim: int = 8
    window: int = 0
    turned_pairs: int = 0
    gain: bool = False
    spare: int = 2
    seed: int = 0
    dtype: torch.dtype = F64
    cache_dtype: torch.dtype = F64

    @property
    def total(self) -> int:
        return sum(self.chunks)

    @property
    def length(self) -> int:
        """Rows of the cache: with a window as few as a ring may have, and `spare`."""
        needed = self.total
        if self.window:
            needed = min(needed, self.window + max(self.chunks) - 1)
        return needed + self.spare

    def random(self, *shape: int, salt: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        return torch.randn(*shape, dtype=F64, generator=generator)

    @cached_property
    def q(self) -> Tensor:
        heads = self.kv_heads * self.group
        return self.random(self.batch, self.total, heads, self.dim, salt=1).to(self.dtype)

    @cached_property
    def rows(self) -> Tensor:
        rows = self.random(self.batch, self.total, self.kv_heads, self.dim, salt=2)
        return rows.to(self.dtype)

    @cached_property
    def values(self) -> Tensor:
        rows = self.random(self.batch, self.total, self.kv_heads, self.dim, salt=3)
        return rows.to(self.dtype)

    @cached_property
    def angles(self) -> Tensor:
        """[total, D/2]; pairs beyond `turned_pairs` have the angle zero."""
        angles = 3 * self.random(self.total, self.dim // 2, salt=4)
        angles[:, self.turned_pairs :] = 0
        return angles

    @cached_property
    def key_gain(self) -> Tensor | None:
        return self.random(self.dim, salt=5).to(self.dtype) if self.gain else None

    @property
    def tables(self) -> tuple[Tensor | None, Tensor | None]:
        if self.turned_pairs == 0:
            return None, None
        return self.angles.cos(), self.angles.sin()

    def empty_cache(self) -> Tensor:
        """NaN in every row: whoever reads one that was not written shows it."""
        shape = (self.batch, self.kv_heads, self.length, self.dim)
        return torch.full(shape, float("nan"), dtype=self.cache_dtype)

    def stored(self, rows: Tensor) -> Tensor:
        return rows.to(self.cache_dtype).to(F64)

    def slices(self) -> list[slice]:
        ends = np.cumsum(self.chunks)
        return [slice(int(end) - chunk, int(end)) for chunk, end in zip(self.chunks, ends)]


SCALE = 0.4


def through_cache(case: Case) -> Tensor:
    cache, (cos, sin) = case.empty_cache(), case.tables
    outputs = [
        attend(
            case.q[:, part],
            case.rows[:, part],
            cache,
            torch.tensor([part.start]),
            cos,
            sin,
            case.key_gain,
            SCALE,
            case.window,
        )
        for part in case.slices()
    ]
    return torch.cat(outputs, dim=1)


def through_two_caches(case: Case) -> Tensor:
    keys, values = case.empty_cache(), case.empty_cache()
    outputs = [
        attend_kv(
            case.q[:, part],
            case.rows[:, part],
            case.values[:, part],
            keys,
            values,
            torch.tensor([part.start]),
            SCALE,
            case.window,
        )
        for part in case.slices()
    ]
    return torch.cat(outputs, dim=1)


def by_formula(case: Case, keys: Tensor, values: Tensor) -> Tensor:
    """The whole conversation at once, from keys and values [B, T, Hkv, D]."""
    batches = zip(case.q.double().numpy(), keys.numpy(), values.numpy())
    results = [restatement.attention(q, k, v, 0, SCALE, case.window) for q, k, v in batches]
    return torch.from_numpy(np.stack(results))


def keys_by_formula(case: Case) -> Tensor:
    keys = case.stored(case.rows)
    if case.key_gain is not None:
        keys = keys * case.key_gain.double()
    return torch.from_numpy(restatement.turned(keys.numpy(), case.angles[:, None].numpy()))


def largest_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).abs().max())

"""Records put together: the repetitions of one bundle on one device at one depth, and medians."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from onekv.bench.planned import planned_anonymous
from onekv.bench.records import BundleInfo, DeviceInfo, Iteration, Phase, PhaseRecord, Purpose


@dataclass(frozen=True)
class Series:
    """`records` are those that count: measured, with the right tokens, and no warm-up."""

    bundle: BundleInfo
    device: DeviceInfo
    depth: int
    records: tuple[Iteration, ...]

    @property
    def tokens(self) -> int:
        """Tokens in the cache at the end."""
        return self.records[0].options.tokens

    def middle(self, figure: Callable[[Iteration], float | None]) -> float | None:
        """The median of a figure over the repetitions that have it."""
        return middle(figure(record) for record in self.records)

    def of_phase(self, phase: Phase, figure: Callable[[PhaseRecord], float | None]) -> float | None:
        """The median of a figure of one phase."""
        entries = [entry for r in self.records if (entry := r.phase(phase)) is not None]
        return middle(figure(entry) for entry in entries)

    def planned(self, phase: Phase) -> int | None:
        """Anonymous memory that the plan gives to a phase, on top of the runner's own baseline."""
        first = self.records[0]
        if first.planned is None:
            return None
        return planned_anonymous(first.planned, first.options, phase)


def collect(records: Iterable[Iteration]) -> list[Series]:
    """The series of speed runs, in the order in which they were first measured."""
    found: dict[tuple[BundleInfo, DeviceInfo, int], list[Iteration]] = {}
    for record in records:
        if record.ok and not record.warm_up and record.purpose is Purpose.SPEED:
            key = (record.bundle, record.device, record.options.depth)
            found.setdefault(key, []).append(record)
    return [Series(*key, tuple(of_key)) for key, of_key in found.items()]


def middle(values: Iterable[float | None]) -> float | None:
    """The median of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None

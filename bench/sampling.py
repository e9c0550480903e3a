"""What the runner's own sampling costs the decode: `python -m onekv.bench.sampling BUNDLE`.

Runs with and without the sampling thread take turns, each pair in the other order than the one
before it. Prints the part of the decode's time that sampling takes, the median of the pairs, and
their spread. For a quiet machine: what another process takes is as large as the cost.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from onekv.bench.devices.base import Device
from onekv.bench.devices.open import open_device
from onekv.bench.suite import SuiteOptions, run_suite
from onekv.commands.common import echo
from onekv.errors import OnekvError
from onekv.export.bundle import Bundle, open_bundle

INTERVAL = 20
"""Milliseconds between samples, as `onekv bench` has it."""

_BASE = SuiteOptions(prompt_tokens=16, decode_tokens=128, repetitions=1, warm_ups=0)


@dataclass(frozen=True)
class Cost:
    """Parts of the decode's time; `middle` is the median of the pairs, the others quartiles."""

    pairs: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The cost."""
        return median(self.pairs)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the pairs."""
        low, _, high = quantiles(self.pairs, n=4, method="inclusive")
        return low, high


def sampling_cost(bundle: Bundle, device: Device, pairs: int) -> Cost:
    """Measure `pairs` of runs.

    Raises:
        OnekvError: a run failed.
    """
    return Cost(tuple(_pair(bundle, device, swapped=bool(pair % 2)) for pair in range(pairs)))


def _pair(bundle: Bundle, device: Device, swapped: bool) -> float:
    order: Sequence[int | None] = (None, INTERVAL) if swapped else (INTERVAL, None)
    seconds = {interval: _decode_seconds(bundle, device, interval) for interval in order}
    return seconds[INTERVAL] / seconds[None] - 1


def _decode_seconds(bundle: Bundle, device: Device, interval: int | None) -> float:
    """The median time of a decoded token."""
    options = replace(_BASE, sampling_ms=interval)
    with tempfile.TemporaryDirectory(prefix="onekv-sampling-") as folder:
        (record,) = run_suite([bundle], device, options, Path(folder) / "one.jsonl")
    if record.speed is None or record.error is not None:
        raise OnekvError("a run failed" + (f": {record.error.message}" if record.error else ""))
    return median(record.speed.decode_seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    with open_device("host") as device:
        cost = sampling_cost(open_bundle(options.bundle), device, options.pairs)
    low, high = cost.quartiles
    echo(
        f"{options.bundle.name}: sampling every {INTERVAL} ms takes {cost.middle:+.2%} of the "
        f"decode's time (quartiles {low:+.2%} to {high:+.2%}, {options.pairs} pairs)"
    )


if __name__ == "__main__":
    main()

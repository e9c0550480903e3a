"""Figures of a run in a file that grows shape by shape, so that a run cut off can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from onekv.bench.kernel.contest import Shape
from onekv.bench.kernel.measure import Result


def read_results(path: Path) -> dict[Shape, Result]:
    """What a file holds, by shape; nothing when there is no file."""
    if not path.exists():
        return {}
    results = [
        Result(Shape(**record["shape"]), record["stream_gb_s"], record["us"])
        for record in json.loads(path.read_text())
    ]
    return {result.shape: result for result in results}


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write the file whole: a reader, or the next run, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".part")
    made.write_text(json.dumps([result.record() for result in results], indent=1))
    made.replace(path)

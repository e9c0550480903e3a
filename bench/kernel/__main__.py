"""The attention kernel against its peers on this machine: `python -m onekv.bench.kernel`.

All contenders take turns within one run; medians, with the machine's streaming-read bandwidth
beside them. Compare ratios, not times, between machines.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from onekv.bench.kernel.contest import Shape
from onekv.bench.kernel.measure import measure, table
from onekv.bench.kernel.results import read_results, write_results

HEADS = ((32, 8), (32, 1), (8, 8))
CONTEXTS = (512, 2048, 8192, 32_768)
PREFILL_TOKENS = 512
PREFILL_DEPTHS = (0, 8192)


def _shapes(options: argparse.Namespace) -> list[Shape]:
    decode = [
        Shape(heads, kv_heads, dim, context, threads)
        for threads, dim, context, (heads, kv_heads) in itertools.product(
            options.threads, options.head_dims, options.contexts, options.heads
        )
    ]
    prefill = [
        Shape(heads, kv_heads, dim, depth, threads, PREFILL_TOKENS)
        for threads, dim, depth, (heads, kv_heads) in itertools.product(
            options.threads, options.head_dims, options.prefill_depths, options.heads
        )
    ]
    return decode + prefill


def _heads(text: str) -> tuple[int, int]:
    heads, kv_heads = text.split(",")
    return int(heads), int(kv_heads)


def main() -> None:
    """Measure and print; `--json` keeps the figures shape by shape, `--resume` goes on from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.15, help="per contender and shape")
    parser.add_argument("--contexts", type=int, nargs="*", default=CONTEXTS)
    parser.add_argument("--prefill-depths", type=int, nargs="*", default=PREFILL_DEPTHS)
    parser.add_argument("--head-dims", type=int, nargs="+", default=(64, 128))
    parser.add_argument("--heads", type=_heads, nargs="+", default=HEADS, metavar="HQ,HKV")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--resume", action="store_true", help="keep what the file holds already")
    options = parser.parse_args()
    if options.resume and not options.json:
        parser.error("--resume needs --json: the file to go on from")
    shapes, start = _shapes(options), time.monotonic()
    results = read_results(options.json) if options.resume else {}
    for i, shape in enumerate(shapes):
        _progress(i, len(shapes), time.monotonic() - start)
        if shape not in results:
            results[shape] = measure(shape, options.seconds)
            if options.json:
                write_results(options.json, results.values())
        print(table(results[shape]), flush=True)


def _progress(done: int, shapes: int, seconds: float) -> None:
    if sys.stderr.isatty():
        print(f"shape {done + 1} of {shapes}, {seconds / 60:.0f} min", end="\r", file=sys.stderr)


if __name__ == "__main__":
    main()

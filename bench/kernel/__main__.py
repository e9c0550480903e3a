"""The attention kernel against its peers on this machine: `python -m onekv.bench.kernel`.

All contenders take turns within one run; medians, with the machine's streaming-read bandwidth
beside them. Compare ratios, not times, between machines.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from onekv.bench.kernel.contest import Shape
from onekv.bench.kernel.measure import measure, table

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
    """Measure and print; `--json` writes all figures as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="per contender and shape")
    parser.add_argument("--contexts", type=int, nargs="*", default=CONTEXTS)
    parser.add_argument("--prefill-depths", type=int, nargs="*", default=PREFILL_DEPTHS)
    parser.add_argument("--head-dims", type=int, nargs="+", default=(64, 128))
    parser.add_argument("--heads", type=_heads, nargs="+", default=HEADS, metavar="HQ,HKV")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    results = []
    for shape in _shapes(options):
        results.append(measure(shape, options.seconds))
        print(table(results[-1]), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([result.record() for result in results], indent=1))


if __name__ == "__main__":
    main()

"""The results of the training runs as one Markdown table."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from samples.recipe import CONFIGURATIONS


def results_table(results: list[dict[str, Any]]) -> str:
    """One row per configuration and token budget; `results` are the records that runs leave."""
    rows = [
        "| configuration | variant | parameters | cache, KB per token | tokens "
        "| perplexity by seed | mean | min..max | standard deviation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    budgets = sorted({r["tokens"] for r in results})
    for tokens in budgets:
        for name in CONFIGURATIONS:
            same = [r for r in results if (r["name"], r["tokens"]) == (name, tokens)]
            if same:
                rows.append(_row(name, tokens, sorted(same, key=lambda r: r["seed"])))
    return "\n".join(rows)


def cache_kb_per_token(name: str) -> float:
    """Bytes that one token adds to an fp16 cache over all layers, / 1024."""
    spec = CONFIGURATIONS[name]
    rows = spec.layers * spec.sharing.cached_tensors * spec.kv_heads
    return rows * spec.head_dim * 2 / 1024


def _row(name: str, tokens: int, runs: list[dict[str, Any]]) -> str:
    found = [r["perplexity"] for r in runs]
    cells = [
        name,
        CONFIGURATIONS[name].variant,
        f"{runs[0]['parameters']:,}",
        f"{cache_kb_per_token(name):g}",
        f"{tokens:,}",
        ", ".join(f"{p:.2f}" for p in found),
        f"{mean(found):.2f}",
        f"{min(found):.2f}..{max(found):.2f}",
        f"{stdev(found):.2f}" if len(found) > 1 else "one run",
    ]
    return f"| {' | '.join(cells)} |"

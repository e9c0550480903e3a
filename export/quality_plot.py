"""Quality against size as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onekv.export.picture import new_figure, save_figure
from onekv.export.quality import QualityReport, QualityRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_quality(report: QualityReport, path: Path) -> None:
    """Perplexity against cache bytes per token, and against bits per weight.

    Raises:
        UsageError: the file's ending is no picture's.
        OnekvError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(path, width=11)
    left, right = figure.subplots(1, 2, sharey=True)
    _points(left, report, lambda row: row.cache_bytes_per_token)
    _points(right, report, lambda row: row.bits_per_weight)
    left.set_xlabel("cache, bytes per token")
    left.set_ylabel(f"perplexity of {report.text}")
    right.set_xlabel("weights, bits per parameter")
    right.legend(title="window, tokens")
    save_figure(figure, path)


def _points(axes: Axes, report: QualityReport, size: Callable[[QualityRow], float]) -> None:
    windows = sorted({row.quality.window for row in report.rows})
    for index, window in enumerate(windows):
        rows = [row for row in report.rows if row.quality.window == window]
        sizes, values = [size(row) for row in rows], [row.quality.perplexity for row in rows]
        axes.scatter(sizes, values, color=f"C{index}", label=str(window))
        for row, x, y in zip(rows, sizes, values):
            axes.annotate(
                f"{row.weights}/{row.cache}",
                (x, y),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize="x-small",
            )
    axes.grid(alpha=0.3)

"""Pictures of results; they need matplotlib, which `onekv[plot]` brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onekv.errors import OnekvError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")


def new_figure(path: Path, width: float = 8, height: float = 5) -> Figure:
    """An empty figure, in inches, that `save_figure` can write to `path`.

    Raises:
        UsageError: the file's ending is no picture's.
        OnekvError: matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path.name} is no {', '.join(ENDINGS)}", "Give it one of these endings.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OnekvError("a plot needs matplotlib", 'pip install "onekv[plot]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure.

    Raises:
        OnekvError: the file cannot be written.
    """
    from matplotlib import rc_context

    try:
        # Text stays text, which can be read out and searched.
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise OnekvError(f"{path} cannot be written: {error.strerror}") from error

"""Planned memory against context as a picture; needs matplotlib, which `onekv[plot]` brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onekv.errors import OnekvError, UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.plan import plan_process, three_projections
from onekv.export.plan_targets import Budget, ModelPlan, TargetPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
_POINTS = 64


def plot_plan(plan: ModelPlan, limits: Sequence[Budget], path: Path) -> None:
    """Draw one line per target and variant up to the planned context, and the budgets.

    Raises:
        UsageError: the file's ending is no picture's.
        OnekvError: matplotlib is missing, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path.name} is no {', '.join(FORMATS)}", "Give it one of these endings.")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OnekvError("a plot needs matplotlib", 'pip install "onekv[plot]"') from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, target in enumerate(plan.targets):
        _lines(axes, plan.spec, target, f"C{index}")
    for budget in limits:
        axes.axhline(budget.bytes / 2**30, color="0.5", linewidth=1, linestyle=":")
        place = (0, budget.bytes / 2**30)
        axes.annotate(
            budget.name,
            place,
            xytext=(0, 3),
            textcoords="offset points",
            fontsize="small",
            color="0.4",
        )
    axes.set_xlabel("context, tokens")
    axes.set_ylabel("planned memory, GiB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        # Text stays text, which can be read out and searched.
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise OnekvError(f"{path} cannot be written: {error.strerror}") from error


def _lines(axes: Axes, spec: ModelSpec, target: TargetPlan, colour: str) -> None:
    options, twin = target.model.options, three_projections(spec)
    contexts = sorted({max(2, options.context * n // _POINTS) for n in range(_POINTS + 1)})
    for each, style in ((spec, "-"), (twin, "--")):
        if each is None:
            continue
        totals = [plan_process(each, replace(options, context=n)).total / 2**30 for n in contexts]
        name = f"{options.target} {each.variant}, {options.weights} + {options.cache} cache"
        axes.plot(contexts, totals, style, color=colour, label=name)

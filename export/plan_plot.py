"""Planned memory against context as a picture; needs matplotlib, which `onekv[plot]` brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onekv.export.model.spec import ModelSpec
from onekv.export.picture import new_figure, save_figure
from onekv.export.plan import plan_process, three_projections
from onekv.export.plan_targets import Budget, ModelPlan, TargetPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 64


def plot_plan(plan: ModelPlan, limits: Sequence[Budget], path: Path) -> None:
    """Draw one line per target and variant up to the planned context, and the budgets.

    Raises:
        UsageError: the file's ending is no picture's.
        OnekvError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(path)
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
    save_figure(figure, path)


def _lines(axes: Axes, spec: ModelSpec, target: TargetPlan, colour: str) -> None:
    options, twin = target.model.options, three_projections(spec)
    contexts = sorted({max(2, options.context * n // _POINTS) for n in range(_POINTS + 1)})
    for each, style in ((spec, "-"), (twin, "--")):
        if each is None:
            continue
        totals = [plan_process(each, replace(options, context=n)).total / 2**30 for n in contexts]
        name = f"{options.target} {each.variant}, {options.weights} + {options.cache} cache"
        axes.plot(contexts, totals, style, color=colour, label=name)

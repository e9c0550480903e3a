"""onekv plan"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onekv.commands.common import (
    AsJson,
    Cache,
    ContextLength,
    GroupSize,
    OperatorForm,
    Overrides,
    Unit,
    Weights,
    echo,
    echo_json,
)
from onekv.export.options import Asked, Target

Planned = Annotated[
    Path,
    typer.Argument(
        help="A model as for export, a config.json alone, or a model of the paper by name: "
        "paper:300m/q-k=v, paper:1.2b/q-gqa-8."
    ),
]


def plan(
    model: Planned,
    to: Annotated[
        list[Target] | None, typer.Option(help="A runtime to plan for; repeatable. Default: all.")
    ] = None,
    context: ContextLength = None,
    weights: Weights = None,
    cache: Cache = None,
    profile: Unit = None,
    ops: OperatorForm = None,
    group: GroupSize = None,
    override: Overrides = None,
    fits: Annotated[
        str | None, typer.Option(help="Memory to fit into, such as 2GiB: how long a context?")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A phone of the table, such as iphone-13-pro, as for --fits.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw memory against context: a .png, .svg or .pdf.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the memory that a model will need, from its configuration alone."""
    from onekv.export.checkpoints import read_spec
    from onekv.export.phones import find_phone
    from onekv.export.plan_fits import parse_bytes
    from onekv.export.plan_targets import budgets, plan_targets, summary

    limits = budgets(parse_bytes(fits) if fits else None, find_phone(device) if device else None)
    asked = Asked(context, weights, cache, profile, ops, group, tuple(override or ()))
    planned = plan_targets(read_spec(model), to or (), asked, limits)
    if plot is not None:
        from onekv.export.plan_plot import plot_plan

        plot_plan(planned, limits, plot)
    if as_json:
        echo_json(summary(planned))
        return
    from onekv.plan_tables import fits_table, plan_lines, source_lines, target_table

    for line in plan_lines(planned):
        echo(line)
    for target in planned.targets:
        echo(target_table(target))
        if target.fits:
            echo(fits_table(target.fits))
    for line in source_lines(limits):
        echo(line)

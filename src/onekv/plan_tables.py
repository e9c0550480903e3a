"""How a plan looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from onekv.export.plan import MemoryPlan
from onekv.export.plan_fits import Fit
from onekv.export.plan_targets import GIVEN, Budget, BudgetFit, ModelPlan, TargetPlan
from onekv.sizes import size


def plan_lines(plan: ModelPlan) -> Iterator[str]:
    """What holds for all targets, in sentences."""
    count = plan.targets[0].model.parameters / 1e6
    yield f"{plan.spec.variant}, {count:.4g}M parameters"
    if plan.arithmetic_only:
        yield (
            f"the model has positions for {plan.spec.max_positions} tokens: figures for more are "
            "arithmetic, no bundle of that context can be made"
        )
    for target, reason in plan.skipped.items():
        yield f"{target} left out: {reason}"


def target_table(target: TargetPlan) -> Table:
    """One target's memory beside its twin's."""
    model, twin, options = target.model, target.twin, target.model.options
    table = Table(title=f"{options.target}, {options.profile}, context {options.context}")
    table.add_column("bytes")
    for plan in (twin, model):
        if plan is not None:
            table.add_column(plan.variant, justify="right")
    if twin is not None:
        table.add_column("saved", justify="right")
    for name, figure, other in _rows(model, twin):
        cells = [size(figure)] if other is None else [size(other), size(figure)]
        if other is not None:
            cells.append(f"{1 - figure / other:.1%}" if other else "")
        table.add_row(name, *cells)
    return table


def fits_table(fits: tuple[BudgetFit, ...]) -> Table:
    """How long a context each budget allows."""
    table = Table(title="Longest context that fits")
    for heading in ("budget", "size", "context", "of the twin"):
        table.add_column(heading, justify="left" if heading == "budget" else "right")
    for fit in fits:
        twin = "" if fit.twin is None else _context(fit.twin)
        table.add_row(fit.budget.name, size(fit.budget.bytes), _context(fit.model), twin)
    return table


def source_lines(limits: Sequence[Budget]) -> Iterator[str]:
    """Where the limits of phones are from."""
    for source in dict.fromkeys(limit.source for limit in limits if limit.source != GIVEN):
        yield f"limits from {source}"


def _context(fit: Fit) -> str:
    if fit.context is None:
        return f"none: needs {size(fit.needed)}"
    return f"{fit.context}{' (all positions)' if fit.by_positions else ''}"


def _rows(model: MemoryPlan, twin: MemoryPlan | None) -> Iterator[tuple[str, int, int | None]]:
    def row(name: str, figure: str) -> tuple[str, int, int | None]:
        return name, getattr(model, figure), None if twin is None else getattr(twin, figure)

    for number, count in model.formats.items():
        yield f"weights, {number}", count, None if twin is None else twin.formats.get(number, 0)
    yield row("weights as the runtime holds them", "weights")
    yield row("  of these mapped from the file", "weights_mapped")
    yield row(f"cache per token, {model.options.cache}", "cache_per_token")
    yield row("cache at the context", "cache")
    yield row(f"activations, {model.prefill} tokens a call", "activations")
    yield row("the runtime itself", "runtime")
    yield row("total", "total")

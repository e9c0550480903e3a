"""A model's plan for several runtimes at once, beside its twin, and against phones' limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, ExportOptions, Target
from onekv.export.phones import Limit, Phone
from onekv.export.plan import MemoryPlan, plan_process, three_projections
from onekv.export.plan_fits import Fit, longest_context
from onekv.export.resolve import resolve_options

GIVEN = "given"
"""The source of a budget that the caller named."""


@dataclass(frozen=True)
class Budget:
    """A limit to fit into, and where it comes from: a phone's table entry, or the caller."""

    name: str
    bytes: int
    source: str


@dataclass(frozen=True)
class BudgetFit:
    """How long a context a budget allows the model, and its twin."""

    budget: Budget
    model: Fit
    twin: Fit | None


@dataclass(frozen=True)
class TargetPlan:
    """One runtime: the model's plan, the same for its twin with three projections, the fits."""

    model: MemoryPlan
    twin: MemoryPlan | None
    fits: tuple[BudgetFit, ...]


@dataclass(frozen=True)
class ModelPlan:
    """`skipped`: targets that cannot store what was asked for, and why.

    arithmetic_only: the context is longer than the model has positions for, so that no bundle
    of it can be made; the paper's own figures at 32,768 tokens are of this kind.
    """

    spec: ModelSpec
    targets: tuple[TargetPlan, ...]
    skipped: Mapping[Target, str]
    arithmetic_only: bool


def budgets(fits: int | None, phone: Phone | None) -> tuple[Budget, ...]:
    """The budgets that a call names."""
    own = () if fits is None else (Budget("--fits", fits, GIVEN),)
    theirs = () if phone is None else tuple(_budget(phone, limit) for limit in phone.limits)
    return (*own, *theirs)


def plan_targets(
    spec: ModelSpec, targets: Sequence[Target], asked: Asked, limits: Sequence[Budget] = ()
) -> ModelPlan:
    """Plan for every target of `targets`, or for all that can store what was asked for.

    Raises:
        UsageError: a target that was named, or every one, cannot store it.
    """
    plans: list[TargetPlan] = []
    skipped: dict[Target, UsageError] = {}
    longest = max(spec.max_positions, asked.context or 0)
    for target in targets or Target:
        try:
            options = resolve_options(replace(spec, max_positions=longest), target, asked)
            plans.append(_plan(spec, options, limits))
        except UsageError as error:
            skipped[target] = error
            if targets:
                raise
    if not plans:
        raise next(iter(skipped.values()))
    reasons = {target: error.message for target, error in skipped.items()}
    return ModelPlan(spec, tuple(plans), reasons, longest > spec.max_positions)


def summary(plan: ModelPlan) -> dict[str, object]:
    """The plan as plain data, with the sums that the dataclasses compute."""
    return {
        "model": plan.spec,
        "variant": plan.spec.variant,
        "arithmetic_only": plan.arithmetic_only,
        "targets": [
            {
                "target": target.model.options.target,
                "options": target.model.options,
                "plan": _figures(target.model),
                "twin": None if target.twin is None else _figures(target.twin),
                "saved": None if target.twin is None else target.twin.total - target.model.total,
                "fits": target.fits,
            }
            for target in plan.targets
        ],
        "skipped": plan.skipped,
    }


def _figures(plan: MemoryPlan) -> dict[str, object]:
    fields = {name: value for name, value in vars(plan).items() if name != "options"}
    return {**fields, "anonymous": plan.anonymous, "total": plan.total}


def _plan(spec: ModelSpec, options: ExportOptions, limits: Sequence[Budget]) -> TargetPlan:
    twin = three_projections(spec)
    fits = tuple(
        BudgetFit(
            budget,
            longest_context(spec, options, budget.bytes),
            None if twin is None else longest_context(twin, options, budget.bytes),
        )
        for budget in limits
    )
    other = None if twin is None else plan_process(twin, options)
    return TargetPlan(plan_process(spec, options), other, fits)


def _budget(phone: Phone, limit: Limit) -> Budget:
    return Budget(f"{phone.name}, {limit.condition}", limit.bytes, limit.source)

"""Export options, resolved once from what was asked for and what the target can do."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Asked, ExportOptions, Target, TargetRules
from onekv.export.targets import target_rules
from onekv.quantize.numbers import Number
from onekv.runtime.platforms import Platform

_Choice = TypeVar("_Choice", bound=StrEnum)


def resolve_options(spec: ModelSpec, target: Target, asked: Asked | None = None) -> ExportOptions:
    """Fill in what was left open: the model's own context, and a cache as wide as the weights.

    Raises:
        UsageError: the context is not one that the model has positions for, or the target
            does not know a number format, a profile, an operator form, a platform or a system.
    """
    asked, rules = asked or Asked(), target_rules(target)
    kind = f"{target} bundles"
    profile = _choose("profile", kind, asked.profile, rules.profiles)
    if profile is not rules.profiles[0]:
        kind = f"{kind} of profile {profile}"
    weights = _choose("weights", kind, asked.weights, rules.weights_on.get(profile, rules.weights))
    # Rows of 4 bits cost more quality than weights of 4 bits: they are asked for by name.
    own = Number.INT8 if weights is Number.INT4 else weights
    caches = rules.caches_on.get(profile, rules.caches)
    return ExportOptions(
        target=target,
        context=_context(spec, rules, asked.context),
        weights=weights,
        cache=_choose("cache", kind, asked.cache or (own if own in caches else None), caches),
        profile=profile,
        ops=_choose("ops", kind, asked.ops, rules.ops_on.get(profile, rules.ops)),
        group=asked.group,
        overrides=asked.overrides,
        platforms=_platforms(target, rules, asked.platforms),
        deployment_target=_deployment_target(target, rules, asked.deployment_target),
    )


def _platforms(
    target: Target, rules: TargetRules, asked: tuple[Platform, ...]
) -> tuple[Platform, ...]:
    for platform in asked:
        if platform not in rules.platforms:
            raise UsageError(
                f"platform {platform}: {target} bundles ship no library for it",
                f"Leave --platform out, or choose from: {', '.join(rules.platforms)}."
                if rules.platforms
                else "Leave --platform out.",
            )
    return tuple(dict.fromkeys(asked))


def _deployment_target(target: Target, rules: TargetRules, asked: str | None) -> str | None:
    known = rules.deployment_targets
    if asked is None:
        return known[0] if known else None
    if asked not in known:
        fitting = f"need one of {', '.join(known)}" if known else "have none"
        raise UsageError(
            f"deployment target {asked!r}: {target} bundles {fitting}",
            f"Leave --deployment-target out for {known[0]}." if known else "Leave it out.",
        )
    return asked


def _context(spec: ModelSpec, rules: TargetRules, asked: int | None) -> int:
    largest = spec.max_positions
    context = largest - largest % rules.context_multiple if asked is None else asked
    if not 2 <= context <= largest:
        raise UsageError(
            f"a context of {context} tokens: the model has positions for {largest}",
            f"Choose --context from 2 to {largest}.",
        )
    return context


def _choose(what: str, kind: str, asked: _Choice | None, known: Sequence[_Choice]) -> _Choice:
    if asked is None:
        return known[0]
    if asked not in known:
        raise UsageError(
            f"{what} {asked}: {kind} know {what} {', '.join(known)}",
            f"Choose --{what} from these, or leave it out for {known[0]}.",
        )
    return asked

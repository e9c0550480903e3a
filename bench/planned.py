"""A bundle's plan as a record keeps it, and what it means for each phase."""

from __future__ import annotations

import math

from onekv.bench.records import Iteration, Options, Phase, PlannedMemory
from onekv.export.manifest import Manifest
from onekv.export.plan import plan_process

PAGE = 4096
"""Bytes. Systems with larger pages hold a little more."""


def planned_memory(manifest: Manifest, options: Options) -> PlannedMemory:
    """What `onekv plan` says of this bundle's model and options.

    Activations are those of the run's longest call, in proportion to the plan's; the prefill's
    calls are those that only fill the cache, too.
    """
    plan = plan_process(manifest.model, manifest.options)
    call = min(plan.prefill, options.chunk or plan.prefill)
    longest = min(call, max(options.depth, options.prompt_tokens))
    return PlannedMemory(
        weights=plan.weights,
        weights_mapped=plan.weights_mapped,
        cache_per_token=plan.cache_per_token,
        cache=plan.cache,
        cache_pieces=plan.cache_pieces,
        activations=plan.activations * longest // plan.prefill,
        activations_kept=plan.activations_kept,
        runtime=plan.runtime,
        first_call=plan.first_call,
        scratch=plan.scratch * longest // plan.prefill,
    )


def planned_anonymous(planned: PlannedMemory, options: Options, phase: Phase) -> int | None:
    """Bytes of anonymous memory that the plan gives to a phase; None where it says nothing.

    The runner's caches take a page when it is first written, so that a phase holds the rows of
    its tokens, not of the whole context. A runtime keeps the activations of the prefill or
    gives them back; those of one token are too few to plan.
    """
    held = planned.weights - planned.weights_mapped + (planned.runtime or 0)
    if phase is Phase.LOADED:
        return held - planned.first_call
    if phase not in (Phase.PREFILL, Phase.DECODE) or planned.activations is None:
        return None
    if phase is Phase.PREFILL:
        tokens = options.depth + options.prompt_tokens
        return held + planned.activations + _filled(planned, tokens)
    kept = planned.activations - planned.scratch if planned.activations_kept else 0
    return held + kept + _filled(planned, options.tokens)


def _filled(planned: PlannedMemory, tokens: int) -> int:
    """Bytes of the pages that the rows of so many tokens lie in."""
    each = planned.cache_per_token * tokens / planned.cache_pieces
    return planned.cache_pieces * math.ceil(each / PAGE) * PAGE


def off_plan(record: Iteration, phase: Phase) -> float | None:
    """By how much of the plan a phase's anonymous memory is above it; None where unknown."""
    entry = record.phase(phase)
    if record.planned is None or entry is None or entry.anonymous is None:
        return None
    planned = planned_anonymous(record.planned, record.options, phase)
    return None if planned is None else entry.anonymous / planned - 1

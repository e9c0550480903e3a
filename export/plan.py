"""Memory from a specification and options alone: no weights read, no torch imported."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onekv.export.manifest import Memory
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions
from onekv.export.targets import target_rules
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules, WeightPlan, parse_override, plan_weights

BYTES = {Number.FP32: 4, Number.FP16: 2}


@dataclass(frozen=True)
class CacheRow:
    """One line of the comparison: a variant's cache in bytes per token and at a context."""

    variant: str
    number: Number
    per_token: int
    total: int


def parameters(spec: ModelSpec) -> int:
    """How many numbers the weights are."""
    return sum(prod(shape) for shape in parameter_shapes(spec).values())


def cache_per_token(spec: ModelSpec, number: Number) -> int:
    """Bytes that one token adds to the cache over all layers."""
    row = spec.kv_heads * spec.head_dim * BYTES[number]
    return spec.layers * spec.sharing.cached_tensors * row


def integer_rules(options: ExportOptions) -> IntegerRules:
    """How a bundle of these options stores integer weights."""
    rules = target_rules(options.target)
    return rules.integers_on.get(options.profile, rules.integers)


def plan_weights_of(spec: ModelSpec, options: ExportOptions) -> WeightPlan:
    """What a bundle of these options stores every weight as.

    Raises:
        UsageError: an override or a group that fits nothing.
    """
    return plan_weights(
        parameter_shapes(spec),
        integer_rules(options),
        options.weights,
        options.group,
        tuple(parse_override(text) for text in options.overrides),
    )


def plan_memory(spec: ModelSpec, options: ExportOptions) -> Memory:
    """What a bundle of these options will hold."""
    per_token = cache_per_token(spec, options.cache)
    weights = plan_weights_of(spec, options)
    return Memory(
        parameters=weights.parameters,
        weights=weights.bytes,
        cache_per_token=per_token,
        cache=per_token * options.context,
    )


def compare_caches(spec: ModelSpec, context: int) -> tuple[CacheRow, ...]:
    """The model beside its twin with three projections, in every number format."""
    twins = [spec] if not spec.sharing.one_tensor else [spec.with_sharing(Sharing.QKV), spec]
    return tuple(
        CacheRow(twin.variant, number, each, each * context)
        for twin in twins
        for number in (Number.FP32, Number.FP16)
        for each in (cache_per_token(twin, number),)
    )

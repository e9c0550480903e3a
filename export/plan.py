"""Memory from a specification and options alone: no weights read, no torch imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onekv.export.footprint import Footprint
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions
from onekv.export.targets import target_rules
from onekv.quantize.numbers import Number
from onekv.quantize.plan import BITS, IntegerRules, WeightPlan, parse_override, plan_weights
from onekv.runtime.rows import RowFormat

if TYPE_CHECKING:
    from onekv.export.manifest import Memory


@dataclass(frozen=True)
class CacheRow:
    """One line of the comparison: a variant's cache in bytes per token and at a context."""

    variant: str
    number: Number
    per_token: int
    total: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a process of these options holds, at its most.

    formats: the weights by number format. weights: all that the runtime keeps of them, with the
    copies that its file makes. weights_mapped: those read from pages of the file, which the
    system may drop; everything else is the process's own. prefill: tokens of one call, at which
    activations are largest. activations_kept: whether the runtime keeps them between calls, all
    but their part `scratch`. first_call: the part of `runtime` that is there from the first call
    on. cache_pieces: in how many places of memory a token's rows lie, one for each layer,
    tensor, head and part.
    """

    variant: str
    options: ExportOptions
    parameters: int
    formats: Mapping[Number, int]
    weights: int
    weights_mapped: int
    cache_per_token: int
    cache: int
    cache_pieces: int
    prefill: int
    activations: int
    runtime: int
    activations_kept: bool
    first_call: int
    scratch: int

    @property
    def anonymous(self) -> int:
        """What cannot be read again from a file: what a system kills for."""
        return self.total - self.weights_mapped

    @property
    def total(self) -> int:
        """Everything, mapped weights included: each token reads all of them."""
        return self.weights + self.cache + self.activations + self.runtime


def parameters(spec: ModelSpec) -> int:
    """How many numbers the weights are."""
    return sum(prod(shape) for shape in parameter_shapes(spec).values())


def cache_per_token(spec: ModelSpec, number: Number, parts: int = 1) -> int:
    """Bytes that one token adds to the cache over all layers, rows stored in `parts` records."""
    if number is Number.INT16:
        row = spec.head_dim * BITS[number] // 8
    else:
        row = RowFormat(number).row_bytes(spec.head_dim, parts)
    return spec.layers * spec.sharing.cached_tensors * spec.kv_heads * row


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


def plan_process(spec: ModelSpec, options: ExportOptions) -> MemoryPlan:
    """What a process that runs a bundle of these options will hold.

    Raises:
        UsageError: an override or a group that fits nothing, or rows that no cache can hold.
    """
    weights = plan_weights_of(spec, options)
    held = _footprint(spec, options, weights)
    formats: dict[Number, int] = {}
    for tensor in weights.tensors:
        formats[tensor.number] = formats.get(tensor.number, 0) + tensor.bytes
    parts = target_rules(options.target).row_parts if spec.sharing.one_tensor else 1
    per_token = cache_per_token(spec, options.cache, parts)
    return MemoryPlan(
        variant=spec.variant,
        options=options,
        parameters=weights.parameters,
        formats=formats,
        weights=held.stored,
        weights_mapped=held.mapped,
        cache_per_token=per_token,
        cache=per_token * options.context,
        cache_pieces=spec.layers * spec.sharing.cached_tensors * spec.kv_heads * parts,
        prefill=held.prefill,
        activations=held.activations,
        runtime=held.runtime,
        activations_kept=held.activations_kept,
        first_call=held.first_call,
        scratch=held.scratch,
    )


def plan_memory(spec: ModelSpec, options: ExportOptions) -> Memory:
    """What a bundle of these options will hold, for its manifest."""
    from onekv.export.manifest import Memory

    plan = plan_process(spec, options)
    return Memory(
        parameters=plan.parameters,
        weights=sum(plan.formats.values()),
        cache_per_token=plan.cache_per_token,
        cache=plan.cache,
    )


def three_projections(spec: ModelSpec) -> ModelSpec | None:
    """The twin that caches two tensors; None for a model that does so itself."""
    return spec.with_sharing(Sharing.QKV) if spec.sharing.one_tensor else None


def compare_caches(spec: ModelSpec, context: int) -> tuple[CacheRow, ...]:
    """The model beside its twin with three projections, in the number formats of floats."""
    return tuple(
        CacheRow(twin.variant, number, each, each * context)
        for twin in (three_projections(spec), spec)
        if twin is not None
        for number in (Number.FP32, Number.FP16)
        for each in (cache_per_token(twin, number),)
    )


def _footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    memory = importlib.import_module(f"onekv.export.targets.{options.target}.memory")
    held: Footprint = memory.footprint(spec, options, weights)
    return held

"""Memory from a specification and options alone: no weights read, no torch imported."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onekv.export.manifest import Memory
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions
from onekv.quantize.numbers import Number

BYTES = {Number.FP32: 4, Number.FP16: 2}

# Scales included: one per row of int8, fp16 per 32 of int4.
WEIGHT_BITS = {Number.FP32: 32, Number.FP16: 16, Number.INT8: 8, Number.INT4: 4.5}


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


def plan_memory(spec: ModelSpec, options: ExportOptions) -> Memory:
    """What a bundle of these options will hold."""
    count = parameters(spec)
    per_token = cache_per_token(spec, options.cache)
    return Memory(
        parameters=count,
        weights=int(count * WEIGHT_BITS[options.weights] / 8),
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

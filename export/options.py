"""What a person asks of an export, resolved once and shown before anything runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec


class Target(enum.StrEnum):
    """The runtime that a bundle is for."""

    ONNX = "onnx"
    EXECUTORCH = "executorch"
    COREML = "coreml"


class Number(enum.StrEnum):
    """How weights or cache rows are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Profile(enum.StrEnum):
    """The compute unit that a Core ML package is shaped for."""

    GPU = "gpu"
    NPU = "npu"


@dataclass(frozen=True)
class ExportOptions:
    """`context` is the most tokens, prompt and answer together, that the bundle can hold."""

    target: Target
    context: int
    weights: Number = Number.FP32
    cache: Number = Number.FP32
    profile: Profile | None = None


ROUNDED = (Number.INT8, Number.INT4)
"""Formats whose values are not those of the source model."""

_FLOATS = (Number.FP32, Number.FP16)
# The number formats that each target stores weights and cache rows in; the first is the default.
_WEIGHTS = {Target.COREML: (Number.FP16, Number.INT8, Number.INT4)}
_CACHES = {Target.COREML: (Number.FP16,)}
# Core ML's states have lengths that are multiples of this.
_COREML_MULTIPLE = 32


def resolve_options(
    spec: ModelSpec,
    target: Target,
    context: int | None,
    weights: Number | None,
    cache: Number | None,
    profile: Profile | None = None,
) -> ExportOptions:
    """Fill in what was left open: the model's own context, and a cache as wide as the weights.

    Raises:
        UsageError: the context is not one that the model has positions for, or the target
            does not know a number format or a profile.
    """
    weights = _choose("weights", target, weights, _WEIGHTS.get(target, _FLOATS))
    caches = _CACHES.get(target, _FLOATS)
    cache = _choose("cache", target, cache or (weights if weights in caches else None), caches)
    if profile is not None and target is not Target.COREML:
        raise UsageError(f"profile {profile}: {target} bundles have no profiles", "Leave it out.")
    if context is None:
        context = spec.max_positions
        if target is Target.COREML:
            context -= context % _COREML_MULTIPLE
    if not 2 <= context <= spec.max_positions:
        raise UsageError(
            f"a context of {context} tokens: the model has positions for {spec.max_positions}",
            f"Choose --context from 2 to {spec.max_positions}.",
        )
    if target is Target.COREML:
        profile = profile or Profile.GPU
    return ExportOptions(target, context, weights, cache, profile)


def _choose(what: str, target: Target, asked: Number | None, known: tuple[Number, ...]) -> Number:
    if asked is None:
        return known[0]
    if asked not in known:
        raise UsageError(
            f"{what} {asked}: {target} bundles store {what} as {', '.join(known)}",
            f"Choose --{what} from these, or leave it out for {known[0]}.",
        )
    return asked

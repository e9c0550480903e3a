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


@dataclass(frozen=True)
class ExportOptions:
    """`context` is the most tokens, prompt and answer together, that the bundle can hold."""

    target: Target
    context: int
    weights: Number = Number.FP32
    cache: Number = Number.FP32


def resolve_options(
    spec: ModelSpec,
    target: Target,
    context: int | None,
    weights: Number,
    cache: Number | None,
) -> ExportOptions:
    """Fill in what was left open: the model's own context, and a cache as wide as the weights.

    Raises:
        UsageError: the context is not one that the model has positions for.
    """
    if context is None:
        context = spec.max_positions
    if not 2 <= context <= spec.max_positions:
        raise UsageError(
            f"a context of {context} tokens: the model has positions for {spec.max_positions}",
            f"Choose --context from 2 to {spec.max_positions}.",
        )
    return ExportOptions(target, context, weights, cache or weights)

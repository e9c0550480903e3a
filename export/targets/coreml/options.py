"""What a Core ML export can be asked for, and what the device cannot hold (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Profile
from onekv.quantize.numbers import Number

DEPLOYMENT_TARGETS = ("iOS18", "iOS26")
"""Those that have states, several functions and 4-bit blocks."""


@dataclass(frozen=True)
class CoreMLOptions:
    """`context` is the length of the state; `prefill` the tokens that one prefill call takes."""

    context: int
    profile: Profile = Profile.GPU
    weights: Number = Number.FP16
    prefill: int = 64
    deployment_target: str = DEPLOYMENT_TARGETS[0]

    def logits(self, spec: ModelSpec) -> list[str]:
        """The outputs that, side by side, are the logits [1, S, vocab]."""
        parts = len(head_parts(spec.vocab_size)) if self.profile is Profile.NPU else 1
        return ["logits"] if parts == 1 else [f"logits_{part}" for part in range(parts)]


MULTIPLE = 32
"""State dimensions that are not multiples of this fail on the Neural Engine."""

NPU_LARGEST = 16_384
"""The largest size of one dimension of a tensor on the Neural Engine."""

PALETTE_ROWS = 16
"""Rows of a matrix that share a palette of 16 values."""

FALLBACK_BYTES = 1_000_000_000
"""Above about this size devices run a package on another unit without saying so."""


def head_parts(vocab_size: int) -> list[tuple[int, int]]:
    """First row and rows of each output of logits, so that each fits the Neural Engine.

    All but the last end where a palette ends.
    """
    count = -(-vocab_size // NPU_LARGEST)
    width = PALETTE_ROWS * -(-vocab_size // (PALETTE_ROWS * count))
    return [(first, min(width, vocab_size - first)) for first in range(0, vocab_size, width)]


def check_options(spec: ModelSpec, options: CoreMLOptions) -> None:
    """Refuse what the device cannot hold.

    Raises:
        UsageError: names the size and the nearest one that fits.
    """
    _check_context(spec, options)
    if not 1 <= options.prefill <= options.context:
        raise UsageError(
            f"prefill of {options.prefill} tokens a call in a context of {options.context}",
            f"Choose from 1 to {options.context}.",
        )
    if options.profile is Profile.NPU:
        _check_neural_engine(spec, options)


def _check_context(spec: ModelSpec, options: CoreMLOptions) -> None:
    largest = spec.max_positions
    if options.profile is Profile.NPU:
        largest = min(largest, NPU_LARGEST)
    largest -= largest % MULTIPLE
    if largest == 0:
        raise UsageError(
            f"the model has positions for {spec.max_positions} tokens; a Core ML state needs "
            f"a length that is a multiple of {MULTIPLE}"
        )
    context = options.context
    if context % MULTIPLE or not 1 <= context <= largest:
        nearest = min(max(MULTIPLE * round(context / MULTIPLE), MULTIPLE), largest)
        raise UsageError(
            f"a context of {context} tokens: the {options.profile} profile holds multiples of "
            f"{MULTIPLE} up to {largest} for this model",
            f"The nearest that fits is --context {nearest}.",
        )


def _check_neural_engine(spec: ModelSpec, options: CoreMLOptions) -> None:
    if spec.head_dim % MULTIPLE:
        nearest = max(MULTIPLE, MULTIPLE * round(spec.head_dim / MULTIPLE))
        raise UsageError(
            f"head_dim {spec.head_dim}: a state of the Neural Engine has rows that are "
            f"multiples of {MULTIPLE} wide (the nearest is {nearest})",
            "Use --profile gpu for this model.",
        )
    for name in ("hidden_size", "ffn_size"):
        if getattr(spec, name) > NPU_LARGEST:
            raise UsageError(
                f"{name} {getattr(spec, name)}: the Neural Engine holds up to {NPU_LARGEST}",
                "Use --profile gpu for this model.",
            )

"""What a Core ML export can be asked for, and what the device cannot hold (no torch here)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Profile


class Weights(enum.StrEnum):
    """How linear weights and token embeddings are stored; all else is fp16."""

    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Int4(enum.StrEnum):
    """The two forms of 4-bit weights that Core ML knows."""

    BLOCK = "block"
    PALETTE = "palette"


@dataclass(frozen=True)
class CoreMLOptions:
    """`context` is the length of the state; `prefill` the tokens that one prefill call takes.

    `int4` None chooses the form that the profile runs: blocks on the GPU, palettes on the
    Neural Engine.
    """

    context: int
    profile: Profile = Profile.GPU
    weights: Weights = Weights.FP16
    prefill: int = 64
    deployment_target: str = "iOS18"
    int4: Int4 | None = None

    @property
    def int4_form(self) -> Int4:
        """The 4-bit form in use."""
        return self.int4 or (Int4.BLOCK if self.profile is Profile.GPU else Int4.PALETTE)

    @property
    def scheme(self) -> str:
        """How matrices are stored: fp16, int8, or the 4-bit form."""
        return str(self.int4_form if self.weights is Weights.INT4 else self.weights)


MULTIPLE = 32
"""State dimensions that are not multiples of this fail on the Neural Engine."""

NPU_LARGEST = 16_384
"""The largest size of one dimension of a tensor on the Neural Engine."""

DEPLOYMENT_TARGETS = ("iOS18", "iOS26")
"""Those that have states, several functions and 4-bit blocks."""

FALLBACK_BYTES = 1_000_000_000
"""Above about this size devices run a package on another unit without saying so."""


def check_options(spec: ModelSpec, options: CoreMLOptions) -> None:
    """Refuse what the device cannot hold.

    Raises:
        UsageError: names the size and the nearest one that fits.
    """
    _check_target(options.deployment_target)
    _check_context(spec, options)
    if not 1 <= options.prefill <= options.context:
        raise UsageError(
            f"prefill of {options.prefill} tokens a call in a context of {options.context}",
            f"Choose from 1 to {options.context}.",
        )
    if options.profile is Profile.NPU:
        _check_neural_engine(spec, options)


def _check_target(target: str) -> None:
    if target not in DEPLOYMENT_TARGETS:
        raise UsageError(
            f"deployment target {target!r} has no Core ML states with several functions",
            f"Choose one of: {', '.join(DEPLOYMENT_TARGETS)}.",
        )


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
    if options.int4 is Int4.BLOCK and options.weights is Weights.INT4:
        raise UsageError(
            "int4 in blocks is a format of the GPU: the Neural Engine would unpack the weights "
            "to fp16, which takes four times the memory",
            "Leave the form out (the npu profile takes 4-bit palettes), or use --profile gpu.",
        )

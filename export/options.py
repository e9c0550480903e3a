"""What a person asks of an export, and what it is resolved to, as plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from onekv.quantize.numbers import Number


class Target(enum.StrEnum):
    """The runtime that a bundle is for."""

    ONNX = "onnx"
    EXECUTORCH = "executorch"
    COREML = "coreml"


class Profile(enum.StrEnum):
    """The compute unit that a file is shaped for; `apple` is Core ML inside ExecuTorch."""

    CPU = "cpu"
    GPU = "gpu"
    NPU = "npu"
    APPLE = "apple"


class Ops(enum.StrEnum):
    """Our operator with its kernel, or the runtime's own operators alone."""

    ONEKV = "onekv"
    STOCK = "stock"


@dataclass(frozen=True)
class Asked:
    """What was asked for; None leaves the choice to the target."""

    context: int | None = None
    weights: Number | None = None
    cache: Number | None = None
    profile: Profile | None = None
    ops: Ops | None = None


@dataclass(frozen=True)
class ExportOptions:
    """`context` is the most tokens, prompt and answer together, that the bundle can hold."""

    target: Target
    context: int
    weights: Number = Number.FP32
    cache: Number = Number.FP32
    profile: Profile = Profile.CPU
    ops: Ops = Ops.ONEKV


@dataclass(frozen=True)
class TargetRules:
    """What a target can store and run. The first of each is its default.

    `context_multiple` divides every context length. `rounds_weights`: the target's own tool
    makes its integers from the float weights.
    """

    weights: tuple[Number, ...]
    caches: tuple[Number, ...]
    profiles: tuple[Profile, ...] = (Profile.CPU,)
    ops: tuple[Ops, ...] = (Ops.ONEKV,)
    context_multiple: int = 1
    rounds_weights: bool = False

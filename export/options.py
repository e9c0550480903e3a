"""What a person asks of an export, and what it is resolved to, as plain data."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onekv.export.model.spec import ModelSpec
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules, WeightPlan
from onekv.runtime.platforms import Platform


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
    group: int | None = None
    overrides: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    deployment_target: str | None = None


@dataclass(frozen=True)
class ExportOptions:
    """`context` is the most tokens, prompt and answer together, that the bundle can hold.

    `group` columns of a weight share a scale, None for the format's own; `overrides` are
    `PATTERN=FORMAT` as `quantize.plan.parse_override` reads them. The bundle ships onekv's
    native library for each of `platforms`. `deployment_target` is the oldest system that it runs
    on, None for a target that does not set one. `calibration` is the name of the text that int4
    weights, or a graph's activations, were calibrated with.
    """

    target: Target
    context: int
    weights: Number = Number.FP32
    cache: Number = Number.FP32
    profile: Profile = Profile.CPU
    ops: Ops = Ops.ONEKV
    group: int | None = None
    overrides: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    deployment_target: str | None = None
    calibration: str | None = None


def _no_notes(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> tuple[str, ...]:
    return ()


Notes = Callable[[ModelSpec, ExportOptions, WeightPlan], tuple[str, ...]]


@dataclass(frozen=True)
class TargetRules:
    """What a target can store and run. The first of each is its default.

    `context_multiple` divides every context length. `integers` says how integer weights are
    stored, `integers_on` where a profile differs, as `ops_on` does for the operator forms,
    `weights_on` and `caches_on` for the formats. Files of the profiles `calibrated` hold the
    ranges that activations take on a text. Files
    of the profiles `not_run` cannot be executed by any runtime for this machine's system.
    `row_parts` is the number of records that a
    quantised row of a one-tensor cache is stored in. `deployment_targets` are systems by name,
    for a target whose file depends on them. `notes` says what a user should know of an export.
    """

    weights: tuple[Number, ...]
    caches: tuple[Number, ...]
    profiles: tuple[Profile, ...] = (Profile.CPU,)
    ops: tuple[Ops, ...] = (Ops.ONEKV,)
    platforms: tuple[Platform, ...] = ()
    context_multiple: int = 1
    integers: IntegerRules = field(default_factory=IntegerRules)
    integers_on: Mapping[Profile, IntegerRules] = field(default_factory=dict)
    row_parts: int = 1
    ops_on: Mapping[Profile, tuple[Ops, ...]] = field(default_factory=dict)
    weights_on: Mapping[Profile, tuple[Number, ...]] = field(default_factory=dict)
    caches_on: Mapping[Profile, tuple[Number, ...]] = field(default_factory=dict)
    calibrated: tuple[Profile, ...] = ()
    not_run: tuple[Profile, ...] = ()
    deployment_targets: tuple[str, ...] = ()
    notes: Notes = _no_notes

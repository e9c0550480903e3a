"""One package per runtime. A target never imports another.

Each has two modules: `rules`, which imports no framework, with `RULES` and
`check(spec, options)`, which raises UsageError for what the target's devices cannot hold; and
`lower`, with `lower(request, folder, progress)`, which writes the runtime's files into `folder`
and gives the name of the one to load.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Target, TargetRules

if TYPE_CHECKING:
    from torch import Tensor

    from onekv.quantize.weights import QuantisedWeight

# Called with the steps done and the steps in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LowerRequest:
    """What a target is given.

    `load` maps the float weights, named as in `Decoder`, when called. `quantised` holds those
    of them that are to be stored as integers, by the same names. `release` gives back the memory
    of what was read, which is read again when it is touched. `calibration` are the tokens of a
    text, for a profile that rounds activations to fixed ranges.
    """

    spec: ModelSpec
    options: ExportOptions
    load: Callable[[], Mapping[str, Tensor]]
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    quantised: Mapping[str, QuantisedWeight] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None
    calibration: tuple[int, ...] = ()


def target_rules(target: Target) -> TargetRules:
    """What a target can store and run."""
    rules: TargetRules = _module(target, "rules").RULES
    return rules


def check_target(spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse, before any work, what lowering would refuse for its options or versions.

    Raises:
        UsageError: the target's devices cannot hold what was asked for.
        OnekvError: a tool that the target needs is missing or of a version that breaks it.
    """
    _module(options.target, "rules").check(spec, options)


def lower(request: LowerRequest, folder: Path, progress: Progress) -> str:
    """Write the target's files into `folder`; gives the name of the one to load."""
    entry: str = lowering(request.options.target).lower(request, folder, progress)
    return entry


def lowering(target: Target) -> ModuleType:
    """A target's module `lower`, which imports its frameworks."""
    return _module(target, "lower")


def _module(target: Target, name: str) -> ModuleType:
    return importlib.import_module(f"onekv.export.targets.{target}.{name}")

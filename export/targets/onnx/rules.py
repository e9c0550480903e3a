"""What ONNX bundles can store."""

from __future__ import annotations

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, TargetRules
from onekv.quantize.numbers import Number

RULES = TargetRules(
    weights=(Number.FP32, Number.FP16),
    caches=(Number.FP32, Number.FP16),
)


def check(spec: ModelSpec, options: ExportOptions) -> None:
    """Everything that the rules allow can be written."""

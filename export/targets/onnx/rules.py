"""What ONNX bundles can store."""

from __future__ import annotations

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, TargetRules
from onekv.export.targets.onnx.libraries import check_libraries
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules
from onekv.runtime.platforms import Platform

# Block sizes of MatMulNBits and GatherBlockQuantized.
_BLOCKS = (16, 32, 64, 128, 256)

RULES = TargetRules(
    weights=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    caches=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    integers=IntegerRules(
        groups={Number.INT8: _BLOCKS, Number.INT4: _BLOCKS}, column_multiple=_BLOCKS[0]
    ),
    row_parts=2,
    platforms=tuple(Platform),
)


def check(spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse integers beside fp16 activations, and libraries that cannot be shipped.

    Older runtimes do not multiply fp16 by integers.
    """
    if options.weights is Number.FP16 and options.overrides:
        raise UsageError(
            "overrides of fp16 weights: integer weights need float32 activations",
            "Start from --weights fp32, int8 or int4.",
        )
    check_libraries(spec, options.platforms)

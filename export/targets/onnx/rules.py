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
# Blocks of a row with one scale: larger ones round activations more coarsely.
_ROW_BLOCKS = (128, 64, 32, 16)

RULES = TargetRules(
    weights=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    caches=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    integers=IntegerRules(
        groups={Number.INT8: _BLOCKS, Number.INT4: _BLOCKS}, column_multiple=_BLOCKS[0]
    ),
    row_parts=2,
    platforms=tuple(Platform),
)


def block_size(columns: int, group: int) -> int:
    """Columns of one block of a matrix whose `group` columns share a scale."""
    if group < columns:
        return group
    return next(size for size in _ROW_BLOCKS if columns % size == 0)


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

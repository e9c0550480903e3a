"""What ONNX bundles can store."""

from __future__ import annotations

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Profile, TargetRules
from onekv.export.targets.onnx.libraries import check_libraries
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules, WeightPlan
from onekv.runtime.platforms import Platform
from onekv.runtime.rows import INT4_GROUP, RowFormat, record_layout

# Block sizes of MatMulNBits and GatherBlockQuantized.
_BLOCKS = (16, 32, 64, 128, 256)
# Blocks of a row with one scale: activations are rounded in the same blocks, and in larger ones
# an outlier takes the steps of more neighbours. Blocks of 16 are slower and buy little more.
_ROW_BLOCKS = (32, 16)


def _notes(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> tuple[str, ...]:
    if options.profile is not Profile.NPU:
        return ()
    return (
        f"Activations of 16 bits in ranges calibrated on {options.calibration}; checked in ONNX "
        "Runtime on the CPU. No phone has run such a file yet: measure before you ship.",
    )


RULES = TargetRules(
    weights=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    caches=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    integers=IntegerRules(
        groups={Number.INT8: _BLOCKS, Number.INT4: _BLOCKS},
        int8_group=_ROW_BLOCKS[0],
        column_multiple=_BLOCKS[0],
    ),
    notes=_notes,
    profiles=(Profile.CPU, Profile.NPU),
    weights_on={Profile.NPU: (Number.INT8, Number.INT4)},
    caches_on={Profile.NPU: (Number.INT16,)},
    calibrated=(Profile.NPU,),
    # An NPU multiplies by matrices with a scale per row alone.
    integers_on={Profile.NPU: IntegerRules(groups={}, int4_group=None)},
    row_parts=2,
    platforms=tuple(Platform),
)


_PREFILL_MOST = 64


def prefill_length(context: int) -> int:
    """Tokens that the prefill graph of the npu profile takes; the context's end is decoded."""
    return min(_PREFILL_MOST, max(2, context // 4))


def block_size(columns: int, group: int) -> int:
    """Columns of one block of a matrix whose `group` columns share a scale."""
    if group < columns:
        return group
    return next(size for size in _ROW_BLOCKS if columns % size == 0)


def check(spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse integers beside fp16 activations, int4 rows that cannot be told apart, and
    libraries that cannot be shipped.

    Older runtimes do not multiply fp16 by integers.
    """
    if options.weights is Number.FP16 and options.overrides:
        raise UsageError(
            "overrides of fp16 weights: integer weights need float32 activations",
            "Start from --weights fp32, int8 or int4.",
        )
    if options.cache is Number.INT4 and spec.sharing.one_tensor:
        _check_halves(spec.head_dim)
    if options.profile is Profile.NPU and options.platforms:
        raise UsageError(
            f"platform {options.platforms[0]}: graphs for an NPU hold no operator of a library",
            "Leave --platform out, or choose --profile cpu.",
        )
    check_libraries(spec, options.platforms)


def _check_halves(head_dim: int) -> None:
    """Refuse int4 rows whose two halves take the bytes of one record with other scales."""
    stored = RowFormat.INT4.row_bytes(head_dim, RULES.row_parts)
    if head_dim % (2 * INT4_GROUP) and record_layout(stored, head_dim)[1] != RULES.row_parts:
        raise UsageError(
            f"int4 rows of head_dim {head_dim}: half a row does not end with a group of "
            f"{INT4_GROUP}, and its bytes are those of a whole one",
            "Use --cache int8, or --to executorch, whose rows are whole.",
        )

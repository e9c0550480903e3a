"""The formats in which a cache stores one row: the one table of them, without torch.

The C++ form of this table is `onekv_format` in kernel/attend.h; row_codec.py defines how values
become records. A quantised row is one record of bytes, its elements followed by its scales, so
that a cache is one tensor [B, Hkv, L, row_bytes] in every format.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from onekv.errors import UsageError

INT4_GROUP = 32
"""Elements along head_dim that share one scale in an int4 row."""


class RowFormat(enum.StrEnum):
    """A row format by the name that `--cache` takes."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def code(self) -> int:
        """The value of `onekv_format` in the C interface."""
        return _LAYOUTS[self].code

    @property
    def quantised(self) -> bool:
        """Whether a row is a record of bytes rather than D elements of a torch type."""
        return _LAYOUTS[self].scale_bytes > 0

    @property
    def torch_dtype(self) -> str:
        """Name of the torch type of the cache tensor."""
        return _LAYOUTS[self].torch_dtype

    def row_bytes(self, head_dim: int, parts: int = 1) -> int:
        """Bytes of one row of one kv head, stored in `parts` records of head_dim / parts.

        Any row of floats has a size; the records of quantised rows are made of eight elements.
        """
        step = 8 * parts if self.quantised else parts
        if head_dim < step or head_dim % step:
            raise UsageError(f"head_dim {head_dim} is not a multiple of {step}")
        layout, dim = _LAYOUTS[self], head_dim // parts
        scales = -(-dim // (layout.scale_group or dim))
        return parts * (dim * layout.bits // 8 + scales * layout.scale_bytes)

    def last_dim(self, head_dim: int, parts: int = 1) -> int:
        """Extent of the last axis of a cache tensor (of one part of it)."""
        return self.row_bytes(head_dim, parts) // parts if self.quantised else head_dim // parts


@dataclass(frozen=True)
class _Layout:
    """`scale_group` is how many elements share a scale; 0 for the whole record."""

    code: int
    bits: int
    torch_dtype: str
    scale_bytes: int = 0
    scale_group: int = 0


_LAYOUTS = {
    RowFormat.FP32: _Layout(0, 32, "float32"),
    RowFormat.FP16: _Layout(1, 16, "float16"),
    RowFormat.BF16: _Layout(2, 16, "bfloat16"),
    RowFormat.INT8: _Layout(3, 8, "uint8", scale_bytes=4),
    RowFormat.INT4: _Layout(4, 4, "uint8", scale_bytes=2, scale_group=INT4_GROUP),
}


def record_layout(last_dim: int, head_dim: int) -> tuple[RowFormat, int]:
    """Format and parts of a cache of bytes, which its last extent (of all parts) determines.

    Where one record and two take the same bytes, the one is named: they hold the same values
    when head_dim is a multiple of 64, and two int4 records of another such head_dim (48, 112,
    ...) cannot be told apart from one.

    Raises:
        ValueError: no quantised format has such rows.
    """
    for form in (RowFormat.INT8, RowFormat.INT4):
        for parts in (1, 2):
            whole = head_dim >= 8 * parts and head_dim % (8 * parts) == 0
            if whole and form.row_bytes(head_dim, parts) == last_dim:
                return form, parts
    raise ValueError(f"no row format stores head_dim {head_dim} in {last_dim} bytes")

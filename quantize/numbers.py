"""The number formats that weights and cache rows are stored in (no torch here)."""

from __future__ import annotations

import enum


class Number(enum.StrEnum):
    """A number format by the name that `--weights` and `--cache` take.

    INT16 is for caches whose scale is fixed in the graph that reads them.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT16 = "int16"
    INT8 = "int8"
    INT4 = "int4"


ROUNDED = (Number.INT8, Number.INT4)
"""Formats whose values are not those of the source model."""

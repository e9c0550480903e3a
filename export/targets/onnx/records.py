"""Quantised rows in standard operators: rows to records of bytes, and back.

The records are those of `runtime.row_codec`, bit for bit; opset 18 cannot look at a float's bits,
so scales are taken apart and put together with powers of two, which is exact. A row below 1e-17
in every element becomes zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

from onekv.runtime.rows import INT4_GROUP, RowFormat

# Exponents of int8 scales that are stored; below them lies nothing that a row holds.
_LOWEST, _HIGHEST = -64, 63


def encode_text(form: RowFormat, name: str, rows: str, dim: int) -> str:
    """Nodes that give `{name}_rows`, uint8 records, of float rows [..., dim]."""
    text = _ENCODE_INT8 if form is RowFormat.INT8 else _encode_int4(dim)
    return text.replace("{n}", name).replace("{rows}", rows).replace("{d}", str(dim))


def decode_text(form: RowFormat, name: str, dim: int) -> str:
    """Nodes that give `{name}`, float32 rows [..., dim], of records `{name}_filled`."""
    text = _DECODE_INT8 if form is RowFormat.INT8 else _decode_int4(dim)
    return text.replace("{n}", name).replace("{d}", str(dim))


def _floats(values: Sequence[float]) -> str:
    return "[" + ", ".join(repr(float(value)) for value in values) + "]"


# What a scale is compared with, and what its exponent stands for, in float32 and in float16.
_INT8_BASES = _floats([2.0**k for k in range(_LOWEST, _HIGHEST + 1)])
_POWERS = _floats([0.0, *[2.0 ** (k - 127) for k in range(1, 255)], 0.0])
_HALF_BASES = _floats([2.0**k for k in range(-14, 16)])
_HALF_FACTORS = _floats([2.0**24, *[2.0 ** (25 - k) for k in range(1, 31)]])
_HALF_POWERS = _floats([2.0**-24, *[2.0 ** (k - 25) for k in range(1, 32)]])

_ENCODE_INT8 = f"""
    {{n}}_wide = Cast <to = 1> ({{rows}})
    {{n}}_size = Abs ({{n}}_wide)
    {{n}}_last = Constant <value_ints = [-1]> ()
    {{n}}_top = ReduceMax ({{n}}_size, {{n}}_last)
    {{n}}_limit = Constant <value_float = 127.0> ()
    {{n}}_low_limit = Neg ({{n}}_limit)
    {{n}}_scale = Div ({{n}}_top, {{n}}_limit)
    {{n}}_nought = Constant <value_float = 0.0> ()
    {{n}}_unit = Constant <value_float = 1.0> ()
    {{n}}_bases = Constant <value_floats = {_INT8_BASES}> ()
    {{n}}_reached = GreaterOrEqual ({{n}}_scale, {{n}}_bases)
    {{n}}_reached_float = Cast <to = 1> ({{n}}_reached)
    {{n}}_count = ReduceSum ({{n}}_reached_float, {{n}}_last)
    {{n}}_stored = Greater ({{n}}_count, {{n}}_nought)
    {{n}}_safe = Where ({{n}}_stored, {{n}}_scale, {{n}}_unit)
    {{n}}_ratio = Div ({{n}}_wide, {{n}}_safe)
    {{n}}_nearest = Round ({{n}}_ratio)
    {{n}}_level = Clip ({{n}}_nearest, {{n}}_low_limit, {{n}}_limit)
    {{n}}_negative = Less ({{n}}_level, {{n}}_nought)
    {{n}}_byte = Constant <value_float = 256.0> ()
    {{n}}_wrapped = Add ({{n}}_level, {{n}}_byte)
    {{n}}_unsigned = Where ({{n}}_negative, {{n}}_wrapped, {{n}}_level)
    {{n}}_level_bytes = Cast <to = 2> ({{n}}_unsigned)
    {{n}}_before = Sub ({{n}}_count, {{n}}_unit)
    {{n}}_from_zero = Max ({{n}}_before, {{n}}_nought)
    {{n}}_index = Cast <to = 7> ({{n}}_from_zero)
    {{n}}_base = Gather ({{n}}_bases, {{n}}_index)
    {{n}}_fraction = Div ({{n}}_safe, {{n}}_base)
    {{n}}_after_point = Sub ({{n}}_fraction, {{n}}_unit)
    {{n}}_steps = Constant <value_float = 8388608.0> ()
    {{n}}_mantissa = Mul ({{n}}_after_point, {{n}}_steps)
    {{n}}_two_bytes = Constant <value_float = 65536.0> ()
    {{n}}_high_part = Div ({{n}}_mantissa, {{n}}_two_bytes)
    {{n}}_high = Floor ({{n}}_high_part)
    {{n}}_high_value = Mul ({{n}}_high, {{n}}_two_bytes)
    {{n}}_rest = Sub ({{n}}_mantissa, {{n}}_high_value)
    {{n}}_middle_part = Div ({{n}}_rest, {{n}}_byte)
    {{n}}_middle = Floor ({{n}}_middle_part)
    {{n}}_middle_value = Mul ({{n}}_middle, {{n}}_byte)
    {{n}}_first = Sub ({{n}}_rest, {{n}}_middle_value)
    {{n}}_offset = Constant <value_float = {127.0 + _LOWEST}> ()
    {{n}}_exponent = Add ({{n}}_from_zero, {{n}}_offset)
    {{n}}_half_range = Constant <value_float = 2.0> ()
    {{n}}_exponent_half = Div ({{n}}_exponent, {{n}}_half_range)
    {{n}}_fourth = Floor ({{n}}_exponent_half)
    {{n}}_even = Mul ({{n}}_fourth, {{n}}_half_range)
    {{n}}_odd = Sub ({{n}}_exponent, {{n}}_even)
    {{n}}_top_bit = Constant <value_float = 128.0> ()
    {{n}}_odd_value = Mul ({{n}}_odd, {{n}}_top_bit)
    {{n}}_third = Add ({{n}}_high, {{n}}_odd_value)
    {{n}}_four = Concat <axis = -1> ({{n}}_first, {{n}}_middle, {{n}}_third, {{n}}_fourth)
    {{n}}_four_stored = Where ({{n}}_stored, {{n}}_four, {{n}}_nought)
    {{n}}_scale_bytes = Cast <to = 2> ({{n}}_four_stored)
    {{n}}_rows = Concat <axis = -1> ({{n}}_level_bytes, {{n}}_scale_bytes)
"""

# ONNX defines that casting 200 to int8 gives -56.
_DECODE_INT8 = f"""
    {{n}}_d_parts = Constant <value_ints = [{{d}}, 4]> ()
    {{n}}_d_levels, {{n}}_d_scale = Split <axis = -1> ({{n}}_filled, {{n}}_d_parts)
    {{n}}_d_signed = Cast <to = 3> ({{n}}_d_levels)
    {{n}}_d_float = Cast <to = 1> ({{n}}_d_signed)
    {{n}}_d_bytes = Cast <to = 1> ({{n}}_d_scale)
    {{n}}_d_0, {{n}}_d_1, {{n}}_d_2, {{n}}_d_3 = Split <axis = -1, num_outputs = 4> ({{n}}_d_bytes)
    {{n}}_d_top_bit = Constant <value_float = 128.0> ()
    {{n}}_d_byte = Constant <value_float = 256.0> ()
    {{n}}_d_odd_part = Div ({{n}}_d_2, {{n}}_d_top_bit)
    {{n}}_d_odd = Floor ({{n}}_d_odd_part)
    {{n}}_d_even = Add ({{n}}_d_3, {{n}}_d_3)
    {{n}}_d_exponent = Add ({{n}}_d_even, {{n}}_d_odd)
    {{n}}_d_odd_value = Mul ({{n}}_d_odd, {{n}}_d_top_bit)
    {{n}}_d_high = Sub ({{n}}_d_2, {{n}}_d_odd_value)
    {{n}}_d_high_value = Mul ({{n}}_d_high, {{n}}_d_byte)
    {{n}}_d_two = Add ({{n}}_d_high_value, {{n}}_d_1)
    {{n}}_d_two_value = Mul ({{n}}_d_two, {{n}}_d_byte)
    {{n}}_d_mantissa = Add ({{n}}_d_two_value, {{n}}_d_0)
    {{n}}_d_steps = Constant <value_float = {2.0**-23!r}> ()
    {{n}}_d_after_point = Mul ({{n}}_d_mantissa, {{n}}_d_steps)
    {{n}}_d_unit = Constant <value_float = 1.0> ()
    {{n}}_d_fraction = Add ({{n}}_d_after_point, {{n}}_d_unit)
    {{n}}_d_powers = Constant <value_floats = {_POWERS}> ()
    {{n}}_d_index = Cast <to = 7> ({{n}}_d_exponent)
    {{n}}_d_power = Gather ({{n}}_d_powers, {{n}}_d_index)
    {{n}}_d_scale_value = Mul ({{n}}_d_fraction, {{n}}_d_power)
    {{n}} = Mul ({{n}}_d_float, {{n}}_d_scale_value)
"""


def _groups(dim: int) -> int:
    return -(-dim // INT4_GROUP)


def _of_group(dim: int) -> str:
    """For each element its group."""
    return "[" + ", ".join(str(element // INT4_GROUP) for element in range(dim)) + "]"


def _encode_int4(dim: int) -> str:
    groups = _groups(dim)
    padding = groups * INT4_GROUP - dim
    padded = "{n}_size"
    text = """
    {n}_wide = Cast <to = 1> ({rows})
    {n}_size = Abs ({n}_wide)
    {n}_last = Constant <value_ints = [-1]> ()
    {n}_nought = Constant <value_float = 0.0> ()
    {n}_unit = Constant <value_float = 1.0> ()
"""
    if padding and groups > 1:
        padded = "{n}_padded"
        text += f"""
    {{n}}_pads = Constant <value_ints = [0, {padding}]> ()
    {{n}}_padded = Pad ({{n}}_size, {{n}}_pads, {{n}}_nought, {{n}}_last)
"""
    return (
        text
        + f"""
    {{n}}_group_shape = Constant <value_ints = [0, 0, 0, {groups}, -1]> ()
    {{n}}_grouped = Reshape ({padded}, {{n}}_group_shape)
    {{n}}_top = ReduceMax <keepdims = 0> ({{n}}_grouped, {{n}}_last)
    {{n}}_limit = Constant <value_float = 7.0> ()
    {{n}}_low_limit = Neg ({{n}}_limit)
    {{n}}_scale_wide = Div ({{n}}_top, {{n}}_limit)
    {{n}}_scale_half = Cast <to = 10> ({{n}}_scale_wide)
    {{n}}_scale = Cast <to = 1> ({{n}}_scale_half)
    {{n}}_positive = Greater ({{n}}_scale, {{n}}_nought)
    {{n}}_safe = Where ({{n}}_positive, {{n}}_scale, {{n}}_unit)
    {{n}}_of_group = Constant <value_ints = {_of_group(dim)}> ()
    {{n}}_step = Gather <axis = -1> ({{n}}_safe, {{n}}_of_group)
    {{n}}_ratio = Div ({{n}}_wide, {{n}}_step)
    {{n}}_kept = Gather <axis = -1> ({{n}}_positive, {{n}}_of_group)
    {{n}}_ratio_kept = Where ({{n}}_kept, {{n}}_ratio, {{n}}_nought)
    {{n}}_nearest = Round ({{n}}_ratio_kept)
    {{n}}_level = Clip ({{n}}_nearest, {{n}}_low_limit, {{n}}_limit)
    {{n}}_zero_level = Constant <value_float = 8.0> ()
    {{n}}_unsigned = Add ({{n}}_level, {{n}}_zero_level)
    {{n}}_low_level, {{n}}_high_level = Split <axis = -1, num_outputs = 2> ({{n}}_unsigned)
    {{n}}_nibble = Constant <value_float = 16.0> ()
    {{n}}_high_value = Mul ({{n}}_high_level, {{n}}_nibble)
    {{n}}_pair = Add ({{n}}_low_level, {{n}}_high_value)
    {{n}}_level_bytes = Cast <to = 2> ({{n}}_pair)
    {{n}}_bases = Constant <value_floats = {_HALF_BASES}> ()
    {{n}}_scale_column = Unsqueeze ({{n}}_scale, {{n}}_last)
    {{n}}_reached = GreaterOrEqual ({{n}}_scale_column, {{n}}_bases)
    {{n}}_reached_float = Cast <to = 1> ({{n}}_reached)
    {{n}}_exponent = ReduceSum ({{n}}_reached_float, {{n}}_last)
    {{n}}_index = Cast <to = 7> ({{n}}_exponent)
    {{n}}_factors = Constant <value_floats = {_HALF_FACTORS}> ()
    {{n}}_factor = Gather ({{n}}_factors, {{n}}_index)
    {{n}}_digits = Mul ({{n}}_scale_column, {{n}}_factor)
    {{n}}_normal = Min ({{n}}_exponent, {{n}}_unit)
    {{n}}_leading = Constant <value_float = 1024.0> ()
    {{n}}_leading_digit = Mul ({{n}}_normal, {{n}}_leading)
    {{n}}_mantissa = Sub ({{n}}_digits, {{n}}_leading_digit)
    {{n}}_byte = Constant <value_float = 256.0> ()
    {{n}}_mantissa_part = Div ({{n}}_mantissa, {{n}}_byte)
    {{n}}_mantissa_high = Floor ({{n}}_mantissa_part)
    {{n}}_mantissa_value = Mul ({{n}}_mantissa_high, {{n}}_byte)
    {{n}}_first = Sub ({{n}}_mantissa, {{n}}_mantissa_value)
    {{n}}_four = Constant <value_float = 4.0> ()
    {{n}}_exponent_value = Mul ({{n}}_exponent, {{n}}_four)
    {{n}}_second = Add ({{n}}_exponent_value, {{n}}_mantissa_high)
    {{n}}_scale_pairs = Concat <axis = -1> ({{n}}_first, {{n}}_second)
    {{n}}_flat = Constant <value_ints = [0, 0, 0, -1]> ()
    {{n}}_scale_flat = Reshape ({{n}}_scale_pairs, {{n}}_flat)
    {{n}}_scale_bytes = Cast <to = 2> ({{n}}_scale_flat)
    {{n}}_rows = Concat <axis = -1> ({{n}}_level_bytes, {{n}}_scale_bytes)
"""
    )


def _decode_int4(dim: int) -> str:
    groups = _groups(dim)
    return f"""
    {{n}}_d_parts = Constant <value_ints = [{dim // 2}, {2 * groups}]> ()
    {{n}}_d_levels, {{n}}_d_scale = Split <axis = -1> ({{n}}_filled, {{n}}_d_parts)
    {{n}}_d_pair = Cast <to = 1> ({{n}}_d_levels)
    {{n}}_d_nibble = Constant <value_float = 16.0> ()
    {{n}}_d_high_part = Div ({{n}}_d_pair, {{n}}_d_nibble)
    {{n}}_d_high = Floor ({{n}}_d_high_part)
    {{n}}_d_high_value = Mul ({{n}}_d_high, {{n}}_d_nibble)
    {{n}}_d_low = Sub ({{n}}_d_pair, {{n}}_d_high_value)
    {{n}}_d_unsigned = Concat <axis = -1> ({{n}}_d_low, {{n}}_d_high)
    {{n}}_d_zero_level = Constant <value_float = 8.0> ()
    {{n}}_d_level = Sub ({{n}}_d_unsigned, {{n}}_d_zero_level)
    {{n}}_d_bytes = Cast <to = 1> ({{n}}_d_scale)
    {{n}}_d_pair_shape = Constant <value_ints = [0, 0, 0, {groups}, 2]> ()
    {{n}}_d_pairs = Reshape ({{n}}_d_bytes, {{n}}_d_pair_shape)
    {{n}}_d_0, {{n}}_d_1 = Split <axis = -1, num_outputs = 2> ({{n}}_d_pairs)
    {{n}}_d_four = Constant <value_float = 4.0> ()
    {{n}}_d_exponent_part = Div ({{n}}_d_1, {{n}}_d_four)
    {{n}}_d_exponent = Floor ({{n}}_d_exponent_part)
    {{n}}_d_exponent_value = Mul ({{n}}_d_exponent, {{n}}_d_four)
    {{n}}_d_mantissa_high = Sub ({{n}}_d_1, {{n}}_d_exponent_value)
    {{n}}_d_byte = Constant <value_float = 256.0> ()
    {{n}}_d_mantissa_value = Mul ({{n}}_d_mantissa_high, {{n}}_d_byte)
    {{n}}_d_mantissa = Add ({{n}}_d_mantissa_value, {{n}}_d_0)
    {{n}}_d_unit = Constant <value_float = 1.0> ()
    {{n}}_d_normal = Min ({{n}}_d_exponent, {{n}}_d_unit)
    {{n}}_d_leading = Constant <value_float = 1024.0> ()
    {{n}}_d_leading_digit = Mul ({{n}}_d_normal, {{n}}_d_leading)
    {{n}}_d_digits = Add ({{n}}_d_mantissa, {{n}}_d_leading_digit)
    {{n}}_d_powers = Constant <value_floats = {_HALF_POWERS}> ()
    {{n}}_d_index = Cast <to = 7> ({{n}}_d_exponent)
    {{n}}_d_power = Gather ({{n}}_d_powers, {{n}}_d_index)
    {{n}}_d_scale_column = Mul ({{n}}_d_digits, {{n}}_d_power)
    {{n}}_d_last = Constant <value_ints = [-1]> ()
    {{n}}_d_scale_value = Squeeze ({{n}}_d_scale_column, {{n}}_d_last)
    {{n}}_d_of_group = Constant <value_ints = {_of_group(dim)}> ()
    {{n}}_d_step = Gather <axis = -1> ({{n}}_d_scale_value, {{n}}_d_of_group)
    {{n}} = Mul ({{n}}_d_level, {{n}}_d_step)
"""

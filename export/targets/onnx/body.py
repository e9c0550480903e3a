"""The operator as a function of standard operators, so that any ONNX Runtime runs the file.

ONNX Runtime inlines such a function when no kernel of that name is registered. Everything
here is opset 18, which the runtimes on older phones have. Attention is computed in float32.
"""

from __future__ import annotations

import onnx
import onnx.parser

from onekv.export.model.spec import ModelSpec
from onekv.export.targets.onnx.records import decode_text, encode_text
from onekv.runtime.rows import RowFormat

DOMAIN = "onekv"
OPSET = 18

_HEADER = f'<opset_import: ["": {OPSET}], domain: "{DOMAIN}">'

_POSITIONS = """
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    minus_one = Constant <value_ints = [-1]> ()
    new = Shape <start = 1, end = 2> (q)
    end = Add (pos, new)
    pos_scalar = Squeeze (pos)
    end_scalar = Squeeze (end)
    one_scalar = Squeeze (one)
    zero_scalar = Squeeze (zero)
    new_positions = Range (pos_scalar, end_scalar, one_scalar)
    positions = Range (zero_scalar, end_scalar, one_scalar)
    slot_shape = Constant <value_ints = [1, 1, -1, 1]> ()
    slots = Reshape (new_positions, slot_shape)
"""

# Only the filled rows are read, so that a step costs what the length so far costs.
_APPEND = """
{encode}
    {name}_shape = Shape ({name}_rows)
    {name}_slots = Expand (slots, {name}_shape)
    present_{name} = ScatterElements <axis = 2> (past_{name}, {name}_slots, {name}_rows)
    {name}_filled = Slice (present_{name}, zero, end, two)
{decode}
"""

_GROUP_QUERIES = """
    q_float = Cast <to = 1> (q)
    scale = Constant <value_float: float = @scale> ()
    q_scaled = Mul (q_float, scale)
    q_by_head = Transpose <perm = [0, 2, 1, 3]> (q_scaled)
    q_shape = Shape (q_by_head)
    kv_shape = Shape <start = 0, end = 2> ({like})
    dim = Shape <start = 3, end = 4> (q)
    group_shape = Concat <axis = 0> (kv_shape, minus_one, dim)
    q_grouped = Reshape (q_by_head, group_shape)
"""

_SOFTMAX = """
    query_column = Unsqueeze (new_positions, one)
    visible{seen} = LessOrEqual (positions, query_column)
{window}
    allowed = Constant <value_float = 0.0> ()
    hidden = Constant <value_float = -3.4e38> ()
    mask = Where (visible, allowed, hidden)
    score_shape = Concat <axis = 0> (kv_shape, minus_one, new, end)
    scores_by_query = Reshape (scores, score_shape)
    masked = Add (scores_by_query, mask)
    weights_by_query = Softmax <axis = -1> (masked)
    scores_shape = Shape (scores)
    weights = Reshape (weights_by_query, scores_shape)
"""

_WINDOW = """
    width = Constant <value_int: int = @window> ()
    first = Sub (query_column, width)
    recent = Greater (positions, first)
    visible = And (visible_past, recent)
"""

_OUTPUT = """
    out_by_head = Reshape (out_grouped, q_shape)
    out_float = Transpose <perm = [0, 2, 1, 3]> (out_by_head)
    out = CastLike (out_float, q)
"""

_ROTATE_KEYS = """
    cos_filled = Slice (cos, zero, end, zero)
    sin_filled = Slice (sin, zero, end, zero)
    low_cos = Mul (low, cos_filled)
    high_sin = Mul (high, sin_filled)
    low_sin = Mul (low, sin_filled)
    high_cos = Mul (high, cos_filled)
    key_low = Sub (low_cos, high_sin)
    key_high = Add (high_cos, low_sin)
"""

_SAME_KEYS = """
    key_low = Identity (low)
    key_high = Identity (high)
"""


def _append(form: RowFormat, name: str, new: str, dim: int) -> str:
    """Write rows `new` of `dim` elements as the cache stores them; read `name` back as floats."""
    encode = f"    {name}_rows = CastLike ({new}, past_{name})"
    decode = f"    {name} = Cast <to = 1> ({name}_filled)"
    if form.quantised:
        encode, decode = encode_text(form, name, new, dim), decode_text(form, name, dim)
    return _APPEND.format(name=name, encode=encode, decode=decode)


def _softmax(window: int) -> str:
    if window:
        return _SOFTMAX.format(seen="_past", window=_WINDOW)
    return _SOFTMAX.format(seen="", window="")


def _attend_text(spec: ModelSpec, form: RowFormat) -> str:
    """A row's two halves are two tensors; as keys they are also the two halves of RoPE."""
    return (
        f"{_HEADER} Attend <scale, window>"
        " (q, c, past_low, past_high, pos, cos, sin, key_gain)"
        " => (out, present_low, present_high) {"
        + _POSITIONS
        + """
    rows = Transpose <perm = [0, 2, 1, 3]> (c)
    rows_low, rows_high = Split <axis = -1, num_outputs = 2> (rows)
"""
        + _append(form, "low", "rows_low", spec.head_dim // 2)
        + _append(form, "high", "rows_high", spec.head_dim // 2)
        + (_SAME_KEYS if spec.rope is None else _ROTATE_KEYS)
        + _GROUP_QUERIES.format(like="rows")
        + """
    q_low, q_high = Split <axis = -1, num_outputs = 2> (q_grouped)
    key_low_turned = Transpose <perm = [0, 1, 3, 2]> (key_low)
    key_high_turned = Transpose <perm = [0, 1, 3, 2]> (key_high)
    scores_low = MatMul (q_low, key_low_turned)
    scores_high = MatMul (q_high, key_high_turned)
    scores = Add (scores_low, scores_high)
"""
        + _softmax(spec.window)
        + """
    out_low = MatMul (weights, low)
    out_high = MatMul (weights, high)
    out_grouped = Concat <axis = -1> (out_low, out_high)
"""
        + _OUTPUT
        + "}"
    )


def _attend_kv_text(spec: ModelSpec, form: RowFormat) -> str:
    return (
        f"{_HEADER} AttendKV <scale, window>"
        " (q, k, v, past_keys, past_values, pos) => (out, present_keys, present_values) {"
        + _POSITIONS
        + """
    new_keys = Transpose <perm = [0, 2, 1, 3]> (k)
    new_values = Transpose <perm = [0, 2, 1, 3]> (v)
"""
        + _append(form, "keys", "new_keys", spec.head_dim)
        + _append(form, "values", "new_values", spec.head_dim)
        + _GROUP_QUERIES.format(like="new_keys")
        + """
    keys_turned = Transpose <perm = [0, 1, 3, 2]> (keys)
    scores = MatMul (q_grouped, keys_turned)
"""
        + _softmax(spec.window)
        + """
    out_grouped = MatMul (weights, values)
"""
        + _OUTPUT
        + "}"
    )


def operator_function(spec: ModelSpec, form: RowFormat = RowFormat.FP32) -> onnx.FunctionProto:
    """The function that stands for the attention nodes of `spec`'s graph over rows of `form`.

    `Attend`: q [B, S, Hq, D], c [B, S, Hkv, D], past_low and past_high [B, Hkv, L, D/2] (the
    halves of the rows), pos int64 [1], cos and sin [T, D/2]; gives out [B, S, Hq, D] and the
    halves with the new rows in. `AttendKV`: the same for keys and values [B, Hkv, L, D].
    Quantised rows are records of bytes in place of D/2 or D elements.
    Rows beyond L make ONNX Runtime's scatter fail with an index error.
    """
    write = _attend_text if spec.sharing.one_tensor else _attend_kv_text
    return onnx.parser.parse_function(write(spec, form))

"""Converters that turn onekv's operators into Core ML's own, so that no custom layer is left.

Importing this module registers them with coremltools.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.frontend.torch import register_torch_op
from coremltools.converters.mil.mil import Var

from onekv.export.options import Profile

# Taken off the scores of hidden positions: exp() gives 0 for them, and no sum leaves fp16.
_HIDDEN = np.float16(3e4)

_profile: ContextVar[Profile] = ContextVar("profile", default=Profile.GPU)


@contextmanager
def lowering_for(profile: Profile) -> Iterator[None]:
    """Lower attention within this block as the profile's compute unit runs it best."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


@dataclass
class _Conversion:
    """What the layers of one program share."""

    states: dict[str, Var] = field(default_factory=dict)
    values: dict[tuple[object, ...], Var] = field(default_factory=dict)


_conversions: WeakKeyDictionary[Any, _Conversion] = WeakKeyDictionary()


@register_torch_op(torch_alias=["onekv::attend"])  # type: ignore[untyped-decorator]
def onekv_attend(context: Any, node: Any) -> None:
    q, c, cache, pos, cos, sin, key_gain, scale, window = _inputs(context, node)
    shared = _conversions.setdefault(context, _Conversion())
    rows = keys = _append(shared, cache, c, pos)
    if key_gain is not None:
        keys = mb.mul(x=rows, y=key_gain.val.astype(np.float16))
    if cos is not None:
        keys = _rotate(keys, cos.val, sin.val)
    out = _attention(shared, q, keys, rows, pos, float(scale.val), int(window.val))
    context.add(out, torch_name=node.name)


@register_torch_op(torch_alias=["onekv::attend_kv"])  # type: ignore[untyped-decorator]
def onekv_attend_kv(context: Any, node: Any) -> None:
    q, k, v, keys, values, pos, scale, window = _inputs(context, node)
    shared = _conversions.setdefault(context, _Conversion())
    keys = _append(shared, keys, k, pos)
    values = _append(shared, values, v, pos)
    out = _attention(shared, q, keys, values, pos, float(scale.val), int(window.val))
    context.add(out, torch_name=node.name)


@register_torch_op(torch_alias=["onekv_coreml::channel_norm"])  # type: ignore[untyped-decorator]
def onekv_channel_norm(context: Any, node: Any) -> None:
    x, weight, bias, eps = _inputs(context, node)
    out = mb.layer_norm(x=x, axes=[1], gamma=weight, beta=bias, epsilon=np.float16(eps.val))
    context.add(out, torch_name=node.name)


def _inputs(context: Any, node: Any) -> list[Any]:
    return [context[name] for name in node.inputs]


def _append(shared: _Conversion, cache: Var, rows: Var, pos: Var) -> Var:
    """Write rows [1, S, H, D] into a layer of a state; give that layer [1, H, L, D]."""
    state, layer = _state_of(cache)
    _, new, heads, width = rows.shape
    length = state.shape[2]
    current = shared.states.get(state.name)
    if current is None:
        current = mb.read_state(input=state)
    end_pos = _once(shared, ("end", pos.name, new), lambda: mb.add(x=pos, y=_int32(new)))
    begin = mb.concat(values=[_int32(layer, 0), pos, _int32(0)], axis=0)
    end = mb.concat(values=[_int32(layer + 1, heads), end_pos, _int32(width)], axis=0)
    head_major = mb.transpose(x=rows, perm=[0, 2, 1, 3])
    updated = mb.slice_update(x=current, update=head_major, begin=begin, end=end)
    current = mb.coreml_update_state(state=state, value=updated)
    shared.states[state.name] = current
    return mb.slice_by_index(
        x=current, begin=[layer, 0, 0, 0], end=[layer + 1, heads, length, width]
    )


def _state_of(cache: Var) -> tuple[Var, int]:
    """The state that a cache argument is a slice of, and the layer."""
    layer, var = 0, cache
    while var.op is not None and var.op.op_type != "read_state":
        if var.op.op_type == "slice_by_index":
            layer = int(var.op.begin.val[0])
        elif var.op.op_type != "cast":
            raise ValueError(f"a cache that is the result of {var.op.op_type}, not a state")
        var = var.op.x
    if var.op is None:
        raise ValueError(f"a cache that is {var.name}, not a state")
    return var.op.input, layer


def _rotate(rows: Var, cos: np.ndarray, sin: np.ndarray) -> Var:
    """Rotary embedding of [1, H, L, D] by tables [T, D/2], T >= L; slot t holds position t."""
    _, heads, length, width = rows.shape
    cos, sin = (table[:length].astype(np.float16) for table in (cos, sin))
    low = mb.slice_by_index(x=rows, begin=[0, 0, 0, 0], end=[1, heads, length, width // 2])
    high = mb.slice_by_index(x=rows, begin=[0, 0, 0, width // 2], end=[1, heads, length, width])
    turned_low = mb.sub(x=mb.mul(x=low, y=cos), y=mb.mul(x=high, y=sin))
    turned_high = mb.add(x=mb.mul(x=high, y=cos), y=mb.mul(x=low, y=sin))
    return mb.concat(values=[turned_low, turned_high], axis=3)


def _attention(
    shared: _Conversion, q: Var, keys: Var, values: Var, pos: Var, scale: float, window: int
) -> Var:
    """q [1, S, Hq, D] over keys and values [1, Hkv, L, D]; a group's queries become rows."""
    _, new, heads, width = q.shape
    kv_heads, length = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    grouped = mb.reshape(
        x=mb.transpose(x=q, perm=[0, 2, 1, 3]), shape=[1, kv_heads, group * new, width]
    )
    mask = _once(
        shared,
        ("mask", pos.name, new, length, group, window),
        lambda: _mask(pos, new, length, group, window),
    )
    if _profile.get() is Profile.GPU:
        # The operator scales by 1/sqrt(D) itself.
        factor = scale * width**0.5
        if abs(factor - 1.0) > 1e-6:
            grouped = mb.mul(x=grouped, y=np.float16(factor))
        out = mb.scaled_dot_product_attention(query=grouped, key=keys, value=values, attn_mask=mask)
    else:
        # Scaled before the product, which could leave fp16's range otherwise.
        scores = mb.matmul(x=mb.mul(x=grouped, y=np.float16(scale)), y=keys, transpose_y=True)
        weights = mb.softmax(x=mb.add(x=scores, y=mask), axis=-1)
        out = mb.matmul(x=weights, y=values)
    out = mb.reshape(x=out, shape=[1, heads, new, width])
    return mb.transpose(x=out, perm=[0, 2, 1, 3])


def _mask(pos: Var, new: int, length: int, group: int, window: int) -> Var:
    """fp16 [1, 1, group * S, L], added to the scores; row g * S + s is the query at pos + s."""
    offsets = np.tile(np.arange(new, dtype=np.int32), group)
    queries = mb.expand_dims(x=mb.add(x=pos, y=offsets), axes=[1])
    slots = np.arange(length, dtype=np.int32)[None]
    visible = mb.less_equal(x=slots, y=queries)
    if window:
        first = mb.sub(x=queries, y=np.int32(window))
        visible = mb.logical_and(x=visible, y=mb.greater(x=slots, y=first))
    hidden = mb.sub(x=mb.cast(x=visible, dtype="fp16"), y=np.float16(1))
    mask = mb.mul(x=hidden, y=_HIDDEN)
    return mb.expand_dims(x=mask, axes=[0, 1])


def _int32(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def _once(shared: _Conversion, key: tuple[object, ...], build: Any) -> Var:
    if key not in shared.values:
        shared.values[key] = build()
    return shared.values[key]

"""The converter that puts stored matrices into a program: constants, or constant expressions.

Importing this module registers it with coremltools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.frontend.torch import register_torch_op
from coremltools.converters.mil.mil import Var, types

from onekv.export.targets.coreml.rounding import Dense, Form, Palette, Scaled

_forms: ContextVar[Mapping[str, Form]] = ContextVar("forms")
# One variable per matrix and shape of each program: a tied head reads the embeddings' own.
_vars: WeakKeyDictionary[Any, dict[tuple[object, ...], Var]] = WeakKeyDictionary()


@contextmanager
def matrices(forms: Mapping[str, Form]) -> Iterator[None]:
    """Convert within this block with these matrices, by the names that the graph has."""
    token = _forms.set(forms)
    try:
        yield
    finally:
        _forms.reset(token)


@register_torch_op(torch_alias=["onekv_coreml::stored"])  # type: ignore[untyped-decorator]
def onekv_stored(context: Any, node: Any) -> None:
    name, first, shape = (context[source].val for source in node.inputs)
    sizes = tuple(int(size) for size in shape)
    known, key = _vars.setdefault(context, {}), (name, int(first), sizes)
    if key not in known:
        form = _forms.get()[name].rows(int(first), sizes[0])
        part = "" if not int(first) else f"_{first}"
        known[key] = _constant(form, sizes, name.replace(".", "_") + part)
    context.add(known[key], torch_name=node.name)


def _constant(form: Form, shape: tuple[int, ...], name: str) -> Var:
    """A variable of `shape`, whose arrays are views of the form's own."""
    if isinstance(form, Dense):
        return mb.const(val=form.value.reshape(shape), name=name)
    spatial = (1,) * (len(shape) - 2)
    if isinstance(form, Palette):
        return mb.constexpr_lut_to_dense(
            indices=form.index.reshape(shape).view(_sub_byte(types.uint4)),
            lut=form.table.reshape(len(form.table), 1, *spatial, 16, 1),
            name=name,
        )
    return mb.constexpr_blockwise_shift_scale(
        data=_integers(form).reshape(shape),
        scale=form.scale.reshape(*form.scale.shape, *spatial),
        name=name,
    )


def _integers(form: Scaled) -> Any:
    return form.data if form.bits == 8 else form.data.view(_sub_byte(types.int4))


def _sub_byte(kind: Any) -> Any:
    return types.nptype_from_builtin(kind)

"""`onekv::attend`, `onekv::attend_kv` and `onekv::rotate` as torch operators.

Importing this module registers them. `pos` is a tensor, so that `torch.export` keeps one
node per layer whatever the position; the `.out` forms are what ExecuTorch calls. They compute
what reference.py defines, in PyTorch, or in the kernel within `torch_kernel.kernel_attention()`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onekv.runtime import reference
from onekv.runtime.adapters import torch_kernel

ATTEND_ARGS = (
    "Tensor q, Tensor c, Tensor(a!) cache, Tensor pos, Tensor? cos=None, Tensor? sin=None, "
    "Tensor? key_gain=None, float scale=1.0, int window=0"
)
ATTEND_KV_ARGS = (
    "Tensor q, Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, Tensor pos, "
    "float scale=1.0, int window=0"
)

_library = torch.library.Library("onekv", "DEF")
_library.define(f"attend({ATTEND_ARGS}) -> Tensor")
_library.define(f"attend.out({ATTEND_ARGS}, *, Tensor(z!) out) -> Tensor(z!)")
_library.define(f"attend_kv({ATTEND_KV_ARGS}) -> Tensor")
_library.define(f"attend_kv.out({ATTEND_KV_ARGS}, *, Tensor(z!) out) -> Tensor(z!)")
_library.define("rotate(Tensor x, Tensor cos, Tensor sin) -> Tensor")
_library.define("rotate.out(Tensor x, Tensor cos, Tensor sin, *, Tensor(z!) out) -> Tensor(z!)")


def _empty_output(q: Tensor, *_: object, **__: object) -> Tensor:
    return q.new_empty(q.shape)


def _same_output(*_: object, out: Tensor, **__: object) -> Tensor:
    return out


def _attend_out(*args: object, out: Tensor, **kwargs: object) -> Tensor:
    return out.copy_(torch_kernel.attend(*args, **kwargs))  # type: ignore[arg-type]


def _attend_kv_out(*args: object, out: Tensor, **kwargs: object) -> Tensor:
    return out.copy_(torch_kernel.attend_kv(*args, **kwargs))  # type: ignore[arg-type]


def _rotate_out(x: Tensor, cos: Tensor, sin: Tensor, *, out: Tensor) -> Tensor:
    return out.copy_(reference.rotate(x, cos, sin))


_library.impl("attend", torch_kernel.attend, "CompositeExplicitAutograd")
_library.impl("attend.out", _attend_out, "CompositeExplicitAutograd")
_library.impl("attend_kv", torch_kernel.attend_kv, "CompositeExplicitAutograd")
_library.impl("attend_kv.out", _attend_kv_out, "CompositeExplicitAutograd")
_library.impl("rotate", reference.rotate, "CompositeExplicitAutograd")
_library.impl("rotate.out", _rotate_out, "CompositeExplicitAutograd")
for _name in ("attend", "attend_kv", "rotate"):
    _library.impl(_name, _empty_output, "Meta")
    _library.impl(f"{_name}.out", _same_output, "Meta")

attend = torch.ops.onekv.attend
attend_kv = torch.ops.onekv.attend_kv
rotate = torch.ops.onekv.rotate

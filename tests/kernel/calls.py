"""Calls of the kernel drawn by hypothesis, and what the definition says about each."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from onekv.runtime import kernel_library as kernel
from onekv.runtime import reference
from onekv.runtime.row_codec import decode, encode
from onekv.runtime.rows import RowFormat

ACTIVATIONS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


@dataclass(frozen=True)
class Call:
    """One call by its shape. `position` tokens are cached before `new_tokens` more."""

    batch: int = 1
    new_tokens: int = 1
    kv_heads: int = 2
    group: int = 2
    head_dim: int = 64
    position: int = 20
    spare: int = 3
    window: int = 0
    rope: str = "none"
    gain: bool = False
    parts: int = 1
    two_tensors: bool = False
    activations: torch.dtype = torch.float32
    threads: int = 1
    seed: int = 0

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group

    @property
    def length(self) -> int:
        """Rows of the cache: with a window just enough for a ring, so that it wraps."""
        if self.window:
            return self.window + self.new_tokens - 1 + self.spare
        return self.position + self.new_tokens + self.spare


def calls(**fixed: object) -> st.SearchStrategy[Call]:
    """Calls of every shape; `fixed` fields keep their value."""
    parts = st.sampled_from([1, 1, 2])
    drawn = {
        "batch": st.integers(1, 3),
        "new_tokens": st.one_of(st.just(1), st.integers(2, 40)),
        "kv_heads": st.sampled_from([1, 2, 3]),
        "group": st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 32]),
        "position": st.one_of(st.integers(0, 80), st.integers(500, 800)),
        "spare": st.integers(0, 5),
        "window": st.sampled_from([0, 0, 1, 7, 64, 300]),
        "rope": st.sampled_from(["none", "full", "partial", "interleaved", "offset"]),
        "gain": st.booleans(),
        "two_tensors": st.sampled_from([False, False, False, True]),
        "activations": st.sampled_from([torch.float32, torch.float32, *ACTIVATIONS]),
        "threads": st.sampled_from([1, 2, 3]),
        "seed": st.integers(0, 1000),
    }
    shapes = parts.flatmap(
        lambda p: st.tuples(
            st.just(p),
            st.one_of(
                st.sampled_from([64, 128]),
                st.integers(1, 24).map(lambda n: 16 * n),
                st.sampled_from([8, 24, 72, 512]) if p == 1 else st.just(512),
            ),
        )
    )
    return st.builds(
        lambda shape, **rest: Call(**{"parts": shape[0], "head_dim": shape[1], **rest, **fixed}),
        shape=shapes,
        **{name: strategy for name, strategy in drawn.items() if name not in fixed},
    )


class Inputs:
    """The tensors of a call: activations, tables, and caches in a row format."""

    def __init__(self, call: Call, form: RowFormat) -> None:
        self.call, self.form = call, form
        g = torch.Generator().manual_seed(call.seed)
        b, s, d = call.batch, call.new_tokens, call.head_dim

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g)

        self.q = draw(b, s, call.heads, d).to(call.activations)
        self.c = draw(b, s, call.kv_heads, d).to(call.activations)
        self.v = draw(b, s, call.kv_heads, d).to(call.activations)
        self.pos = torch.tensor([call.position])
        self.cos, self.sin = rope_tables(call)
        self.gain = 0.5 + torch.rand(d, generator=g) if call.gain else None
        self.scale = d**-0.5
        old = draw(2, b, call.kv_heads, call.length, d)
        held = min(call.position, call.length)
        old[:, :, :, held:] = float("nan")  # what was never written must never be read
        self.caches = [split(old[0], call.parts, form)]
        if call.two_tensors:
            self.caches.append(split(old[1], call.parts, form))

    def run(self, isa: int = kernel.BEST_ISA, **changes: object) -> Tensor:
        """Call the kernel, which writes `caches` in place."""
        out = torch.full_like(self.q, float("nan"))
        kernel.attend(self.arguments(out, isa=isa, **changes))
        return out

    def arguments(self, out: Tensor, **changes: object) -> kernel.CAttendArgs:
        call = self.call
        rows = [c_rows(cache) for cache in self.caches]
        fields: dict[str, object] = {
            "batch": call.batch,
            "new_tokens": call.new_tokens,
            "heads": call.heads,
            "kv_heads": call.kv_heads,
            "head_dim": call.head_dim,
            "length": call.length,
            "position": call.position,
            "window": call.window,
            "scale": self.scale,
            "activations": ACTIVATIONS[call.activations],
            "q": c_tensor(self.q),
            "new_rows": c_tensor(self.c),
            "out": c_tensor(out),
            "format": self.form.code,
            "rows": rows[0],
            "pairing": int(call.rope == "interleaved"),
            "threads": call.threads,
        }
        if call.two_tensors:
            fields |= {"values": rows[1], "new_values": c_tensor(self.v)}
        if self.cos is not None and self.sin is not None:
            fields |= {"cos": self.cos.data_ptr(), "sin": self.sin.data_ptr()}
            fields |= {"table_length": self.cos.shape[0], "table_stride": self.cos.stride(0)}
        if self.gain is not None:
            fields["key_gain"] = self.gain.data_ptr()
        return kernel.CAttendArgs(**{**fields, **changes})

    def expected(self) -> Tensor:
        """What `runtime/reference.py` gives in float64, and the caches it leaves."""
        order = pair_order(self.call)
        q = self.q.double()[..., order]
        stored = [self.rounded(t) for t in (self.c, self.v)]
        rows = [join(cache, self.form).double()[..., order] for cache in self.caches]
        gain = None if self.gain is None else self.gain.double()[order]
        cos, sin = (None if t is None else t.double() for t in (self.cos, self.sin))
        new = [t.double()[..., order] for t in stored]
        if not self.call.two_tensors:
            out = reference.attend(q, new[0], rows[0], self.pos, cos, sin, gain, self.scale,
                                   self.call.window)  # fmt: skip
        else:
            out = two_tensors(self, q, new, rows, gain)
        return out[..., torch.argsort(order)]

    def rounded(self, rows: Tensor) -> Tensor:
        """New rows [B, S, Hkv, D] as their format keeps them."""
        return join(split(rows.float(), self.call.parts, self.form), self.form)

    def clone_caches(self) -> list[list[Tensor]]:
        return [[part.clone() for part in cache] for cache in self.caches]


def two_tensors(
    inputs: Inputs, q: Tensor, new: list[Tensor], rows: list[Tensor], gain: Tensor | None
) -> Tensor:
    """`attend_kv` over keys that are rotated first: the kernel rotates them when it reads them."""
    length, call = rows[0].shape[2], inputs.call
    end = call.position + call.new_tokens
    held = torch.arange(max(0, end - length), call.position)
    at = torch.arange(call.position, end)
    keys = rows[0].clone()
    keys[:, :, held % length] = as_key(inputs, keys[:, :, held % length], held, gain)
    fresh = as_key(inputs, new[0].transpose(1, 2), at, gain).transpose(1, 2)
    return reference.attend_kv(
        q, fresh, new[1], keys, rows[1], inputs.pos, inputs.scale, call.window
    )


def as_key(inputs: Inputs, rows: Tensor, at: Tensor, gain: Tensor | None) -> Tensor:
    keys = rows if gain is None else rows * gain
    if inputs.cos is None or inputs.sin is None:
        return keys
    return reference.rotate(keys, inputs.cos[at].double(), inputs.sin[at].double())


def pair_order(call: Call) -> Tensor:
    """The dimensions in the order in which interleaved pairs become half-split ones."""
    order = torch.arange(call.head_dim)
    return torch.cat((order[0::2], order[1::2])) if call.rope == "interleaved" else order


def rope_tables(call: Call) -> tuple[Tensor, Tensor] | tuple[None, None]:
    if call.rope == "none":
        return None, None
    half = call.head_dim // 2
    angles = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    if call.rope == "partial":
        angles[half // 4 :] = 0
    positions = torch.arange(call.position + call.new_tokens, dtype=torch.float64)
    factor, first = (1.25, 7) if call.rope == "offset" else (1.0, 0)
    turned = torch.outer(positions + first, angles)
    return (turned.cos() * factor).float(), (turned.sin() * factor).float()


def split(rows: Tensor, parts: int, form: RowFormat) -> list[Tensor]:
    """Rows [..., D] as one or two tensors of records."""
    finite = torch.nan_to_num(rows, nan=0.0)
    tensors = []
    for values, part in zip(rows.chunk(parts, -1), finite.chunk(parts, -1)):
        records = encode(part, form).contiguous()
        if form.quantised:  # a scale that is not a number poisons whoever reads the row
            records[values.isnan().any(-1)] = 0xFF
        else:
            records[values.isnan()] = float("nan")
        tensors.append(records)
    return tensors


def join(parts: list[Tensor], form: RowFormat) -> Tensor:
    return torch.cat([decode(part, form) for part in parts], dim=-1)


def c_tensor(t: Tensor) -> kernel.CTensor:
    return kernel.CTensor(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2))


def c_rows(parts: list[Tensor]) -> kernel.CRows:
    size = parts[0].element_size()
    pointers = (ctypes.c_void_p * 2)(*(part.data_ptr() for part in parts))
    batch, head, row = (stride * size for stride in parts[0].stride()[:3])
    return kernel.CRows(pointers, batch, head, row)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """L2 error relative to the expected values; NaN counts as infinite."""
    error = (actual.double() - expected.double()).norm() / expected.double().norm()
    return float("inf") if error.isnan() else float(error)


__all__ = ["Call", "Inputs", "calls", "join", "relative_error"]

"""The decoder as graphs of static shapes, for an NPU: no operator of ours, caches as graph inputs.

A graph reads the cached rows and gives the new ones; whoever runs it puts them into the cache. So
no step copies a cache, and a row is never rounded twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from onekv.export.model.cache import Step
from onekv.export.model.decoder import Decoder, RMSNorm
from onekv.export.model.decomposed import masked_attention
from onekv.export.model.spec import ModelSpec
from onekv.runtime.quiet import quiet
from onekv.runtime.reference import rotate

# RMSNormalization, one operator on an NPU, came with 23; ONNX Runtime 1.24 has it.
OPSET = 23

HIDDEN = -1e4
"""The score of a row that a query does not see."""

IDS, PAST_LENGTH, LOGITS = "input_ids", "past_length", "logits"


@dataclass
class StaticCache:
    """One layer's rows [1, Hkv, L, D]: (c,) or (keys, values); `new` are [1, Hkv, S, D].

    visible: bool [S, L + S]. turn: cosines and sines [S, D/2] of the new positions.
    """

    past: tuple[Tensor, ...]
    visible: Tensor
    turn: tuple[Tensor, Tensor] | None
    new: tuple[Tensor, ...] = field(default=())

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """See `LayerCache`."""
        self.new = tuple(row.transpose(1, 2) for row in rows)
        parts = [(old.squeeze(0), new.squeeze(0)) for old, new in zip(self.past, self.new)]
        (old_keys, new_keys), values = parts[0], torch.cat(parts[-1], 1)
        if len(rows) == 1 and step.cos is not None and step.sin is not None:
            assert self.turn is not None
            old_keys = rotate(old_keys, step.cos, step.sin)
            new_keys = rotate(new_keys, *self.turn)
        keys = torch.cat((old_keys, new_keys), 1)
        return masked_attention(q, keys, values, self._hide, step.scale)

    def _hide(self, scores: Tensor) -> Tensor:
        return torch.where(self.visible, scores, HIDDEN)


class _OneOperatorNorm(nn.Module):
    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "RMSNormalization",
            (x, self.weight),
            {"axis": -1, "epsilon": self.eps},
            dtype=x.dtype,
            shape=x.shape,
            version=OPSET,
        )


class _Graph(nn.Module):
    """ids int64 [1, S], past_length int64 [1] and past rows to logits and new rows."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        super().__init__()
        self.decoder, self.context = decoder, context
        for module in list(decoder.modules()):
            for name, child in module.named_children():
                if isinstance(child, RMSNorm):
                    setattr(module, name, _OneOperatorNorm(child))

    def forward(
        self, ids: Tensor, past_length: Tensor, past: Sequence[tuple[Tensor, ...]]
    ) -> tuple[Tensor, list[Tensor]]:
        _, turn, step = self.decoder.begin(ids, past_length)
        if turn is not None:
            turn = (turn[0].squeeze(1), turn[1].squeeze(1))
        visible = self._visible(ids.shape[1], past_length, step.window)
        caches = [StaticCache(rows, visible, turn) for rows in past]
        hidden = self.decoder.hidden(ids, past_length, caches)
        logits = F.linear(hidden, self.decoder.head)
        return logits, [row for cache in caches for row in cache.new]

    def _visible(self, new: int, past_length: Tensor, window: int) -> Tensor:
        """bool [S, L + S]: which rows, first those of the cache, a query sees."""
        offsets, slots = torch.arange(new), torch.arange(self.context)
        behind = offsets.unsqueeze(1) - offsets
        fresh = behind >= 0
        old = (slots < past_length).expand(new, -1)
        if window:
            fresh &= behind < window
            old = old & (slots > (past_length + offsets).unsqueeze(1) - window)
        return torch.cat((old, fresh), 1)


def row_names(stem: str, spec: ModelSpec) -> list[str]:
    """The graph's cache inputs (`past`) or outputs (`new`), in order."""
    parts = ("rows",) if spec.sharing.one_tensor else ("keys", "values")
    return [f"{stem}.{layer}.{part}" for layer in range(spec.layers) for part in parts]


def trace_static(spec: ModelSpec, context: int, new: int) -> ir.Model:
    """The graph that takes `new` tokens a call, in float32, with initializers without data.

    Inputs: input_ids int64 [1, new], past_length int64 [1] (tokens in the cache), and
    `past.N.*` [1, Hkv, context, D]; outputs: logits [1, new, vocab] and `new.N.*`
    [1, Hkv, new, D]. Initializers are named `decoder.` + the parameter's name.
    """
    with FakeTensorMode():
        graph = _Graph(Decoder(spec, context), context).eval()
        shape = (1, spec.kv_heads, context, spec.head_dim)
        cached = spec.sharing.cached_tensors
        past = [tuple(torch.zeros(shape) for _ in range(cached)) for _ in range(spec.layers)]
        ids, length = (torch.zeros(size, dtype=torch.int64) for size in ((1, new), (1,)))
    with quiet():
        program = torch.onnx.export(
            torch.export.export(graph, (ids, length, past)),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            input_names=[IDS, PAST_LENGTH, *row_names("past", spec)],
            output_names=[LOGITS, *row_names("new", spec)],
        )
    assert program is not None
    return program.model

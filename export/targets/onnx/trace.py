"""The decoder as an ONNX graph whose weights are still names: no tensor is read here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from onekv.export.model.cache import Step
from onekv.export.model.decoder import Decoder
from onekv.export.model.spec import ModelSpec
from onekv.export.targets.onnx.body import DOMAIN, OPSET
from onekv.runtime.quiet import quiet
from onekv.runtime.rows import RowFormat

PREFIX = "decoder."


@dataclass
class TracedCache:
    """A layer's cache as graph inputs: a row's halves, or keys and values."""

    past: tuple[Tensor, Tensor]
    present: tuple[Tensor, ...] = field(default=())

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """Emit one node of the operator."""
        if len(rows) == 1:
            name = "Attend"
            inputs = [q, *rows, *self.past, step.pos]
            if step.cos is not None and step.sin is not None:
                inputs += [step.cos, step.sin]
        else:
            name, inputs = "AttendKV", [q, *rows, *self.past, step.pos]
        out, *present = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{name}",
            inputs,
            {"scale": step.scale, "window": step.window},
            dtypes=[q.dtype, *(t.dtype for t in self.past)],
            shapes=[q.shape, *(t.shape for t in self.past)],
            version=1,
        )
        self.present = tuple(present)
        return out


class _Graph(nn.Module):
    """The interface that onnxruntime-genai expects, around a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, past: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        caches = [TracedCache((first, second)) for first, second in past]
        logits = self.decoder(input_ids, position_ids[0, :1], caches)
        return logits.float(), [tensor for cache in caches for tensor in cache.present]


def half_names(stem: str, layers: int) -> list[str]:
    """The graph's cache inputs (`past_key_values`) or outputs (`present`) in order."""
    return [f"{stem}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def cache_width(spec: ModelSpec, form: RowFormat) -> int:
    """Extent of the last axis of each cache tensor: half a row, or a whole key or value."""
    return form.last_dim(spec.head_dim // 2 if spec.sharing.one_tensor else spec.head_dim)


def trace(spec: ModelSpec, context: int, weights: torch.dtype, cache: RowFormat) -> ir.Model:
    """The graph of `spec` for up to `context` positions, with initializers that hold no data.

    Inputs: input_ids and position_ids int64 [1, S] and, per layer, two tensors
    [1, Hkv, L, W] with S and L free; outputs: float32 logits [1, S, vocab] and the same
    tensors with the new rows in. Initializers are named `decoder.` + the parameter's name.
    """
    with FakeTensorMode():
        with _default_dtype(weights):
            graph = _Graph(Decoder(spec, context)).eval()
        shape = (1, spec.kv_heads, 128, cache_width(spec, cache))
        kind = getattr(torch, cache.torch_dtype)
        past = [
            (torch.zeros(shape, dtype=kind), torch.zeros(shape, dtype=kind))
            for _ in range(spec.layers)
        ]
        # Any length but 0, 1 and 128, which torch.export would take for constants.
        ids = torch.zeros(1, 7, dtype=torch.int64)
        arguments = (ids, ids.clone(), past)
    new, length = torch.export.Dim("sequence", min=1), torch.export.Dim("cache_length", min=1)
    free = ({1: new}, {1: new}, [({2: length}, {2: length})] * spec.layers)
    with quiet():
        exported = torch.export.export(graph, arguments, dynamic_shapes=free)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            input_names=[
                "input_ids",
                "position_ids",
                *half_names("past_key_values", spec.layers),
            ],
            output_names=["logits", *half_names("present", spec.layers)],
        )
    assert program is not None
    return program.model


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

"""The decoder as a transformers model, so that `AutoModelForCausalLM` loads the type "onekv"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from onekv.export.model.cache import Step
from onekv.export.model.decoder import Decoder
from onekv.export.model.huggingface_config import OnekvConfig
from onekv.export.model.rope import rotary_tables
from onekv.runtime.reference import rotate


@dataclass
class _Rows:
    """A layer's cache inside transformers' own: one tensor per layer where the model shares.

    positions: int64 [B, T] of all rows so far; visible: bool [B, 1, S, T], what the new
    tokens see of them. Without a cache the new rows are all there are.
    """

    cache: Cache | None
    layer: int
    positions: Tensor
    visible: Tensor

    def attend(self, q: Tensor, rows: tuple[Tensor, ...], step: Step) -> Tensor:
        """See `LayerCache.attend`."""
        keys, values = rows[0].transpose(1, 2), rows[-1].transpose(1, 2)
        shared = len(rows) == 1
        if self.cache is not None:
            # transformers caches two tensors; the second one has no width where one is enough.
            stored = keys[..., :0] if shared else values
            keys, values = self.cache.update(keys, stored, self.layer)
        # A sliding cache gives the latest rows only.
        length = keys.shape[2]
        if shared:
            values = keys
            if step.cos is not None and step.sin is not None:
                turn = _angles(self.positions[:, -length:], step.cos, step.sin, keys)
                keys = rotate(keys, *(angle.unsqueeze(1) for angle in turn))
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            attn_mask=self.visible[..., -length:],
            scale=step.scale,
            enable_gqa=True,
        )
        return out.transpose(1, 2)


class OnekvForCausalLM(PreTrainedModel, GenerationMixin):
    """`Decoder` behind the interface of transformers, with padding, `generate` and a loss."""

    config_class = OnekvConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _no_split_modules = ["Layer"]  # noqa: RUF012

    def __init__(self, config: OnekvConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config.spec)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        embedding: nn.Module = self.model.embed_tokens
        return embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The head, when it is not the embedding."""
        return None if self.model.spec.tied_head else self.model.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S, vocab] of input_ids [B, S] that follow the cached tokens.

        attention_mask: [B, T] over cached and new tokens, 0 for padding. logits_to_keep: of
        how many last tokens logits are wanted, 0 for all.
        """
        cache = kwargs.pop("past_key_values", None) if cache is None else cache
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=self.config)
        past = 0 if cache is None else int(cache.get_seq_length())
        positions, visible = _layout(input_ids, attention_mask, past, self.model.spec.window)
        if position_ids is None:
            position_ids = positions[:, past:]
        hidden = self._layers(input_ids, position_ids, positions, visible, cache)
        logits = F.linear(hidden[:, -logits_to_keep:], self._head())
        loss = None
        if labels is not None:
            size = self.model.spec.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=cache)

    def _layers(
        self,
        tokens: Tensor,
        new_positions: Tensor,
        positions: Tensor,
        visible: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        """`Decoder.forward` up to the head, with a position of its own for every row of a batch."""
        decoder, spec = self.model, self.model.spec
        x, turn, cos, sin = decoder.embed_tokens(tokens), None, None, None
        if spec.rope is None:
            x = x + decoder.embed_positions(new_positions)
        else:
            cos, sin = decoder.cos, decoder.sin
            low, high = _angles(new_positions, cos, sin, x)
            turn = (low.unsqueeze(2), high.unsqueeze(2))
        step = Step(new_positions, cos, sin, spec.head_dim**-0.5, spec.window)
        for index, layer in enumerate(decoder.layers):
            x = layer(x, turn, step, _Rows(cache, index, positions, visible))
        hidden: Tensor = decoder.norm(x)
        return hidden

    def _head(self) -> Tensor:
        decoder = self.model
        head = decoder.embed_tokens if decoder.spec.tied_head else decoder.lm_head
        weight: Tensor = head.weight
        return weight

    def _init_weights(self, module: nn.Module) -> None:
        """Rotary tables are in no checkpoint: they are made again after a model is loaded."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, Decoder) and module.spec.rope is not None:
            cos, sin = rotary_tables(module.spec, len(module.cos))
            init.copy_(module.cos, cos)
            init.copy_(module.sin, sin)


def _angles(positions: Tensor, cos: Tensor, sin: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, S, D/2] at positions [B, S]."""
    return F.embedding(positions, cos).to(like), F.embedding(positions, sin).to(like)


def _layout(tokens: Tensor, mask: Tensor | None, past: int, window: int) -> tuple[Tensor, Tensor]:
    """Positions [B, T] of all tokens, padding not counted, and what the new ones see of them."""
    batch, new = tokens.shape
    index = torch.arange(past + new, device=tokens.device)
    kept = torch.ones(batch, past + new, dtype=torch.bool, device=tokens.device)
    if mask is not None:
        if mask.shape != kept.shape:
            raise ValueError(
                f"attention_mask has shape {list(mask.shape)}, not {list(kept.shape)}: "
                "one number for every cached and new token"
            )
        kept = mask.bool()
    positions = (kept.long().cumsum(-1) - 1).clamp(min=0)
    queries = index[past:, None]
    # Padding sees itself, so that no row of the softmax is empty.
    visible = (kept[:, None, :] | (index == queries)) & (index <= queries)
    if window:
        visible &= positions[:, None, :] > positions[:, past:, None] - window
    return positions, visible.unsqueeze(1)


def register_model() -> None:
    """Make AutoModelForCausalLM know the type."""
    AutoModelForCausalLM.register(OnekvConfig, OnekvForCausalLM, exist_ok=True)

"""One decoder for every family: the specification decides what each part is.

Parameters carry the names that Llama has in transformers, so most readers only strip a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onekv.export.model.cache import LayerCache, Step, WholeSequence
from onekv.export.model.rope import rotary_tables
from onekv.export.model.spec import Activation, ModelSpec, Norm
from onekv.runtime.reference import rotate


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 and returned in the input's type."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def _norm(spec: ModelSpec) -> nn.Module:
    if spec.norm is Norm.RMS:
        return RMSNorm(spec.hidden_size, spec.norm_eps)
    return nn.LayerNorm(spec.hidden_size, spec.norm_eps)


def _activation(spec: ModelSpec) -> nn.Module:
    if spec.activation is Activation.SILU:
        return nn.SiLU()
    return nn.GELU(approximate="tanh" if spec.activation is Activation.GELU_TANH else "none")


class Rotation(nn.Module):
    """Rotary embedding of queries and keys: a module, so that a target can put its own form."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, S, H, D]; cos, sin [S, 1, D/2]."""
        return rotate(x, cos, sin)


class Attention(nn.Module):
    """Attention in which a projection that the sharing makes redundant does not exist."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        query, rows = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.k_proj = nn.Linear(spec.hidden_size, rows, bias=spec.qkv_bias)
        if not spec.sharing.query_is_key:
            self.q_proj = nn.Linear(spec.hidden_size, query, bias=spec.qkv_bias)
        if not spec.sharing.one_tensor:
            self.v_proj = nn.Linear(spec.hidden_size, rows, bias=spec.qkv_bias)
        self.o_proj = nn.Linear(query, spec.hidden_size, bias=spec.out_bias)
        self.sharing = spec.sharing
        self.rotation = Rotation()

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None, step: Step, cache: LayerCache
    ) -> Tensor:
        """x [B, S, hidden]; `turn` cosines and sines [S, 1, D/2] of the new positions."""
        k = self._heads(self.k_proj(x))
        q = k if self.sharing.query_is_key else self._heads(self.q_proj(x))
        if turn is not None:
            q = self.rotation(q, *turn)
        if self.sharing.one_tensor:
            rows: tuple[Tensor, ...] = (k,)
        else:
            k = k if turn is None else self.rotation(k, *turn)
            rows = (k, self._heads(self.v_proj(x)))
        out: Tensor = self.o_proj(cache.attend(q, rows, step).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], -1, self.head_dim)


class MLP(nn.Module):
    """Feed-forward block: gated (SwiGLU and its kin) or plain."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.up_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=spec.mlp_bias)
        if spec.gated_mlp:
            self.gate_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=spec.mlp_bias)
        self.down_proj = nn.Linear(spec.ffn_size, spec.hidden_size, bias=spec.mlp_bias)
        self.gated, self.activation = spec.gated_mlp, _activation(spec)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        hidden = self.activation(self.gate_proj(x)) * up if self.gated else self.activation(up)
        out: Tensor = self.down_proj(hidden)
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to its input."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.input_layernorm = _norm(spec)
        self.self_attn = Attention(spec)
        self.post_attention_layernorm = _norm(spec)
        self.mlp = MLP(spec)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None, step: Step, cache: LayerCache
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, step, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Token ids to logits. `context` bounds the positions that its rotary tables cover."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: ModelSpec, context: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        if spec.rope is None:
            self.embed_positions = nn.Embedding(spec.max_positions, spec.hidden_size)
        else:
            with torch.device("cpu"):
                cos, sin = rotary_tables(spec, context or spec.max_positions)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm = _norm(spec)
        if not spec.tied_head:
            self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)

    def forward(
        self, tokens: Tensor, pos: Tensor, caches: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """Logits [B, S, vocab] of tokens [B, S] that follow `pos` (int64 [1]) cached ones.

        Without caches the tokens are the whole sequence.
        """
        return F.linear(self.hidden(tokens, pos, caches), self.head)

    def hidden(
        self, tokens: Tensor, pos: Tensor, caches: Sequence[LayerCache] | None = None
    ) -> Tensor:
        """What the head is applied to, [B, S, hidden]: everything of `forward` but the head."""
        x, turn, step = self.begin(tokens, pos)
        if caches is None:
            caches = [WholeSequence()] * len(self.layers)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, turn, step, cache)
        out: Tensor = self.norm(x)
        return out

    def begin(
        self, tokens: Tensor, pos: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None, Step]:
        """What the first layer is given, and the rotations and the step that all layers share."""
        positions = pos + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embed_tokens(tokens)
        step, turn = self._step(pos), None
        if step.cos is None or step.sin is None:
            x = x + self.embed_positions(positions)
        else:
            cos, sin = F.embedding(positions, step.cos), F.embedding(positions, step.sin)
            turn = (cos.unsqueeze(1).to(x), sin.unsqueeze(1).to(x))
        return x, turn, step

    def _step(self, pos: Tensor) -> Step:
        spec = self.spec
        cos, sin = (None, None) if spec.rope is None else (self.cos, self.sin)
        return Step(pos, cos, sin, scale=spec.head_dim**-0.5, window=spec.window)

    @property
    def head(self) -> Tensor:
        """The matrix [vocab, hidden] that gives the logits."""
        return self.embed_tokens.weight if self.spec.tied_head else self.lm_head.weight


def build_decoder(spec: ModelSpec, state: dict[str, Tensor], context: int | None = None) -> Decoder:
    """A decoder that uses the tensors of `state` themselves, without copying them.

    Raises:
        RuntimeError: a tensor is missing, left over, or of the wrong shape (readers check
            this first, with the checkpoint's own names).
    """
    with torch.device("meta"):
        decoder = Decoder(spec, context)
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder.eval()

"""Attention and the decoder once more, in NumPy float64, straight from the formulas.

It shares no code with the package: loops over heads and queries, no cache, no batching, and
rotation as a product of complex numbers. Slow and plain on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onekv.export.model.spec import ModelSpec

Array = NDArray[np.float64]

# softmax(a Q K^T) V, where the three letters name the projections that give Q, K and V.
ROLES = {"qkv": "qkv", "q-k=v": "qkk", "q=k-v": "kkv", "q=k=v": "kkk"}


def turned(x: Array, angles: Array, factor: float = 1.0) -> Array:
    """x [..., D] with the pair (i, i + D/2) turned by angles [D/2]."""
    low, high = np.split(x, 2, axis=-1)
    pairs = (low + 1j * high) * np.exp(1j * angles) * factor
    return np.concatenate((pairs.real, pairs.imag), axis=-1)


def attention(
    q: Array, keys: Array, values: Array, first: int, scale: float, window: int = 0
) -> Array:
    """q [S, Hq, D] at positions first, first + 1, ... over keys and values [T, Hkv, D]."""
    out = np.zeros_like(q)
    group = q.shape[1] // keys.shape[1]
    for s, h in np.ndindex(q.shape[:2]):
        end = first + s + 1
        start = max(0, end - window) if window else 0
        k, v = keys[start:end, h // group], values[start:end, h // group]
        scores = scale * (k @ q[s, h])
        weights = np.exp(scores - scores.max())
        out[s, h] = weights @ v / weights.sum()
    return out


def logits(spec: ModelSpec, state: Mapping[str, Array], tokens: NDArray[np.int64]) -> Array:
    """Logits [S, vocab] of one sequence of token ids [S]."""
    x = state["embed_tokens.weight"][tokens]
    if spec.rope is None:
        x = x + state["embed_positions.weight"][: len(tokens)]
    for index in range(spec.layers):
        layer = _Weights(state, f"layers.{index}.")
        x = x + _attention_block(spec, layer, _norm(spec, layer, "input_layernorm", x))
        x = x + _mlp(spec, layer, _norm(spec, layer, "post_attention_layernorm", x))
    x = _norm(spec, _Weights(state, ""), "norm", x)
    return x @ state["embed_tokens.weight" if spec.tied_head else "lm_head.weight"].T


class _Weights:
    def __init__(self, state: Mapping[str, Array], prefix: str) -> None:
        self.state, self.prefix = state, prefix

    def linear(self, name: str, x: Array) -> Array:
        bias = self.state.get(f"{self.prefix}{name}.bias", np.zeros(()))
        return x @ self.state[f"{self.prefix}{name}.weight"].T + bias


def _attention_block(spec: ModelSpec, layer: _Weights, x: Array) -> Array:
    def heads(projection: str) -> Array:
        rows = layer.linear(f"self_attn.{projection}_proj", x)
        return rows.reshape(len(x), -1, spec.head_dim)

    q, k, v = (heads(projection) for projection in ROLES[spec.sharing.value])
    if spec.rope is not None:
        angles = _angles(spec.rope.theta, spec.head_dim, len(x))[:, None]
        q, k = turned(q, angles), turned(k, angles)
    out = attention(q, k, v, 0, 1 / math.sqrt(spec.head_dim), spec.window)
    return layer.linear("self_attn.o_proj", out.reshape(len(x), -1))


def _angles(theta: float, head_dim: int, positions: int) -> Array:
    frequencies = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    return np.outer(np.arange(positions), frequencies)


def _norm(spec: ModelSpec, weights: _Weights, name: str, x: Array) -> Array:
    gain = weights.state[f"{weights.prefix}{name}.weight"]
    if spec.norm.value == "rmsnorm":
        return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + spec.norm_eps)
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + spec.norm_eps)
    return gain * centred / deviation + weights.state[f"{weights.prefix}{name}.bias"]


def _mlp(spec: ModelSpec, layer: _Weights, x: Array) -> Array:
    up = layer.linear("mlp.up_proj", x)
    if spec.gated_mlp:
        up = up * _activation(spec, layer.linear("mlp.gate_proj", x))
    else:
        up = _activation(spec, up)
    return layer.linear("mlp.down_proj", up)


def _activation(spec: ModelSpec, x: Array) -> Array:
    match spec.activation.value:
        case "silu":
            return x / (1 + np.exp(-x))
        case "gelu":
            return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        case "gelu_tanh":
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    raise ValueError(spec.activation)

"""What a runtime holds beside weights and cache while it computes, in bytes; no framework here."""

from __future__ import annotations

from dataclasses import dataclass

from onekv.export.model.spec import ModelSpec

_FLOAT = 4


@dataclass(frozen=True)
class Footprint:
    """One target's share of a plan.

    stored: weights as the runtime's file holds them, copies that it needs included. mapped: those
    of them that are read from pages of the file, which the system may drop and read again; the
    rest is memory of the process alone. prefill: most tokens of one call. activations: the most
    that one such call holds at once; activations_kept: whether the runtime keeps that memory
    between calls, all but `scratch`, a part that the call gives back in any case.
    runtime: the runtime's own structures, of which its first call adds `first_call`.
    """

    stored: int
    mapped: int
    prefill: int
    activations: int
    runtime: int
    activations_kept: bool = True
    first_call: int = 0
    scratch: int = 0


@dataclass(frozen=True)
class Step:
    """One call: `tokens` new ones, `context` in the cache after it, `bytes` of one activation.

    scores: whether attention keeps a matrix of scores; our kernel does not. `rows` is how many
    copies of the filled rows it makes, as a body of stock operators does.
    """

    tokens: int
    context: int
    bytes: int = _FLOAT
    scores: int = 0
    rows: int = 0


def activation_bytes(spec: ModelSpec, step: Step) -> int:
    """The most that one step holds: in attention, in the feed-forward, or at the head.

    The residual stream lives throughout. Logits are float32 in every runtime.
    """
    stream = step.tokens * spec.hidden_size * step.bytes
    query = step.tokens * spec.heads * spec.head_dim * step.bytes
    row = step.tokens * spec.kv_heads * spec.head_dim * step.bytes
    filled = step.context * spec.kv_heads * spec.head_dim * _FLOAT
    scores = spec.heads * step.tokens * step.context * _FLOAT
    attention = stream + 2 * query + spec.sharing.cached_tensors * row
    attention += step.rows * spec.sharing.cached_tensors * filled + step.scores * scores
    hidden = step.tokens * spec.ffn_size * step.bytes
    feed_forward = stream + hidden * (3 if spec.gated_mlp else 2)
    head = stream + step.tokens * spec.vocab_size * _FLOAT
    return stream + max(attention, feed_forward, head)

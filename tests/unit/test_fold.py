"""Foldings change what is cached and nothing of what the model computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onekv.errors import UsageError
from onekv.export.model.decoder import build_decoder
from onekv.export.model.spec import ModelSpec
from onekv.quantize.fold import Heads, fold_bases, fold_bias, hadamard_bases, scaling_bases
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids

PLAIN = [PAPER["Q-K=V"], PAPER["Q-GQA-2"], PAPER["Q-MQA"]]
ROTATED = [LLAMA["llama Q-GQA-2"], LLAMA["llama Q-GQA-2, wide heads, biases"]]
plain = pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.variant)


def heads_of(spec: ModelSpec) -> Heads:
    return Heads(spec.layers, spec.heads, spec.kv_heads, spec.head_dim, spec.rope is not None)


def state_of(spec: ModelSpec) -> dict[str, Tensor]:
    return {name: t.double() for name, t in tiny_decoder(spec).state_dict().items()}


def same_logits(spec: ModelSpec, state: dict[str, Tensor], folded: dict[str, Tensor]) -> bool:
    """Whether two states compute the same, in double precision wherever the model allows it."""
    tokens, pos = token_ids(spec, 24), torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        want, got = (build_decoder(spec, dict(s)).double()(tokens, pos) for s in (state, folded))
    # Norms and rotary tables are float32 by definition.
    return bool((got - want).norm() <= 1e-6 * want.norm())


@plain
def test_a_bias_moves_from_the_rows_into_the_output(spec: ModelSpec) -> None:
    state = state_of(spec)
    folded = fold_bias(state, heads_of(spec))
    assert not folded["layers.0.self_attn.k_proj.bias"].any()
    assert not torch.equal(
        folded["layers.0.self_attn.o_proj.bias"], state["layers.0.self_attn.o_proj.bias"]
    )
    assert same_logits(spec, state, folded)


@plain
def test_a_hadamard_rotation_is_exact_without_rope(spec: ModelSpec) -> None:
    state = state_of(spec)
    folded = fold_bases(state, heads_of(spec), hadamard_bases(heads_of(spec)))
    assert same_logits(spec, state, folded)


@pytest.mark.parametrize("spec", PLAIN + ROTATED, ids=lambda spec: spec.variant)
def test_scaling_is_exact_with_rope_and_without(spec: ModelSpec) -> None:
    state = state_of(spec)
    bases = scaling_bases(state, heads_of(spec))
    factors = bases.diagonal(dim1=-2, dim2=-1)
    assert (factors.max() / factors.min()) > 1.05
    assert same_logits(spec, state, fold_bases(state, heads_of(spec), bases))


def test_a_factor_per_dimension_is_wrong_with_rope() -> None:
    spec = ROTATED[0]
    state = state_of(spec)
    factors = torch.linspace(0.5, 2.0, spec.head_dim).expand(spec.layers, spec.kv_heads, -1)
    assert not same_logits(spec, state, fold_bases(state, heads_of(spec), factors.diag_embed()))


@pytest.mark.parametrize("spec", ROTATED, ids=lambda spec: spec.variant)
def test_what_does_not_commute_with_rope_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="does not commute with RoPE"):
        hadamard_bases(heads_of(spec))
    with pytest.raises(UsageError, match="does not commute with RoPE"):
        fold_bias(state_of(spec), heads_of(spec))

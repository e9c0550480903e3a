"""The decoder and its rotary tables against transformers' own Llama and Mistral."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from onekv.errors import CheckpointError
from onekv.export.model.config import config_from_spec, spec_from_config
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.rope import rotary_tables
from onekv.export.model.spec import ModelSpec, Rope, Sharing
from onekv.export.verify import difference
from tests.specs import LLAMA, LLAMA_SPEC, tiny_decoder, token_ids

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def with_rope(spec: ModelSpec, parameters: dict[str, Any]) -> ModelSpec:
    kind, theta = parameters["rope_type"], parameters["rope_theta"]
    return replace(spec, rope=Rope(theta, kind, tuple(sorted(parameters.items()))))


def settings(spec: ModelSpec, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.ffn_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.tied_head,
        "rope_parameters": rope,
        "attn_implementation": "eager",
    }


def llama(spec: ModelSpec, rope: dict[str, Any]) -> LlamaForCausalLM:
    biases = {"attention_bias": spec.qkv_bias, "mlp_bias": spec.mlp_bias}
    return LlamaForCausalLM(LlamaConfig(**settings(spec, rope), **biases)).eval()


def theirs(decoder: Decoder, model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of transformers' model once it holds the decoder's weights."""
    state = {f"model.{name}": value for name, value in decoder.state_dict().items()}
    state["lm_head.weight"] = state.pop("model.lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    with torch.no_grad():
        return model(tokens).logits


def relative_l2(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    rows = (logits.flatten(0, 1).numpy() for logits in (ours, theirs))
    return difference(*rows).relative_l2


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_equal_llamas(kv_heads: int, rope: dict[str, Any]) -> None:
    spec = with_rope(replace(LLAMA_SPEC, kv_heads=kv_heads), rope)
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 40, batch=2)
    logits = decoder(tokens, torch.zeros(1, dtype=torch.int64))
    assert relative_l2(logits, theirs(decoder, llama(spec, rope), tokens)) < 5e-6


def test_logits_equal_llamas_with_a_separate_head_biases_and_wide_heads() -> None:
    biases = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
    spec = replace(LLAMA_SPEC, kv_heads=2, tied_head=False, head_dim=24, **biases)
    spec = with_rope(spec, ROPES["default"])
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 12)
    logits = decoder(tokens, torch.zeros(1, dtype=torch.int64))
    assert relative_l2(logits, theirs(decoder, llama(spec, ROPES["default"]), tokens)) < 5e-6


def test_logits_equal_mistrals_with_a_sliding_window() -> None:
    spec = with_rope(LLAMA["llama GQA-2, window"], ROPES["default"])
    config = MistralConfig(**settings(spec, ROPES["default"]), sliding_window=spec.window)
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 30)
    logits = decoder(tokens, torch.zeros(1, dtype=torch.int64))
    expected = theirs(decoder, MistralForCausalLM(config).eval(), tokens)
    assert relative_l2(logits, expected) < 5e-6


def test_a_shared_projection_equals_a_llama_with_both_projections_the_same() -> None:
    """What a Q-K=V model computes is Llama with W_v = W_k, so sharing changes no formula."""
    spec = with_rope(LLAMA["llama Q-GQA-2"], ROPES["llama3"])
    shared, tokens = tiny_decoder(spec), token_ids(spec, 30)
    state = shared.state_dict()
    for name in [name for name in state if ".k_proj." in name]:
        state[name.replace("k_proj", "v_proj")] = state[name]
    twin = build_decoder(spec.with_sharing(Sharing.QKV), state)
    expected = theirs(twin, llama(twin.spec, ROPES["llama3"]), tokens)
    logits = shared(tokens, torch.zeros(1, dtype=torch.int64))
    assert relative_l2(logits, expected) < 5e-6


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
def test_rotary_tables_equal_transformers(rope: dict[str, Any]) -> None:
    spec = with_rope(LLAMA_SPEC, rope)
    cos, sin = rotary_tables(spec, positions=64)
    module = LlamaRotaryEmbedding(LlamaConfig(**settings(spec, rope)))
    expected_cos, expected_sin = module(torch.zeros(1), torch.arange(64)[None])
    half = spec.head_dim // 2
    torch.testing.assert_close(cos, expected_cos[0, :, :half], atol=1e-5, rtol=0)
    torch.testing.assert_close(sin, expected_sin[0, :, :half], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
def test_a_written_configuration_gives_every_transformers_the_same_rope(
    rope: dict[str, Any],
) -> None:
    """Version 5 reads `rope_parameters`; version 4 reads `rope_theta` and `rope_scaling` alone."""
    spec = with_rope(LLAMA_SPEC, rope)
    written = config_from_spec(spec)
    before_5 = {key: value for key, value in written.items() if key != "rope_parameters"}
    expected = rotary_tables(spec, positions=64)
    for config in (written, before_5):
        for ours, table in zip(rotary_tables(spec_from_config(config), 64), expected):
            assert torch.equal(ours, table)
    read = LlamaConfig(**written).rope_parameters
    assert {key: read[key] for key in rope} == rope


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "spiral"])
def test_a_rope_without_a_fixed_table_is_refused_by_name(kind: str) -> None:
    spec = replace(LLAMA_SPEC, rope=Rope(kind=kind))
    with pytest.raises(CheckpointError, match=kind) as caught:
        rotary_tables(spec, positions=8)
    assert "yarn" in str(caught.value.fix)


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_a_rope_over_a_part_of_the_head_is_refused(kind: str) -> None:
    spec = with_rope(LLAMA_SPEC, ROPES[kind] | {"partial_rotary_factor": 0.5})
    with pytest.raises(CheckpointError, match="8 of 16"):
        rotary_tables(spec, positions=8)


def test_a_proportional_rope_leaves_pairs_as_they_are_through_zero_angles() -> None:
    """Gemma 4's global layers: a quarter of the pairs turns, with exponents over the whole head."""
    rope = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    cos, sin = rotary_tables(with_rope(LLAMA_SPEC, rope), positions=50)
    angles = torch.arange(50.0, dtype=torch.float64)[:, None] * 1e6 ** (-torch.arange(2.0) / 8)
    torch.testing.assert_close(cos[:, :2], angles.cos().float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(sin[:, :2], angles.sin().float(), atol=1e-5, rtol=0)
    assert (cos[:, 2:] == 1).all()
    assert (sin[:, 2:] == 0).all()

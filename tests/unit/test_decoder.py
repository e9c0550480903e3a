"""The decoder, whole and through its caches, against an independent NumPy re-statement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onekv.export.model.cache import OneTensorCache, new_caches
from onekv.export.model.decoder import Decoder, build_decoder
from onekv.export.model.paper import paper_model
from onekv.export.model.spec import ModelSpec, Rope, Sharing
from tests.specs import LLAMA, LLAMA_SPEC, PAPER, PAPER_SPEC, tiny_decoder, token_ids
from tests.unit import restatement

START = torch.zeros(1, dtype=torch.int64)


def restated(decoder: Decoder, tokens: Tensor) -> Tensor:
    state = {name: value.double().numpy() for name, value in decoder.state_dict().items()}
    rows = [restatement.logits(decoder.spec, state, row) for row in tokens.numpy()]
    return torch.from_numpy(np.stack(rows))


def relative_l2(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def through_caches(
    decoder: Decoder, tokens: Tensor, chunks: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Logits of all tokens, given in `chunks` to caches that are just long enough."""
    caches = new_caches(decoder.spec, tokens.shape[1], batch=len(tokens))
    for cache in caches:
        for name, tensor in vars(cache).items():
            setattr(cache, name, tensor.to(dtype))
    outputs, pos = [], 0
    for part in tokens.split(chunks, dim=1):
        outputs.append(decoder(part, torch.tensor([pos]), caches))
        pos += part.shape[1]
    return torch.cat(outputs, dim=1)


def test_whole_sequence_equals_the_formulas(spec: ModelSpec) -> None:
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 11, batch=2)
    assert relative_l2(decoder(tokens, START), restated(decoder, tokens)) < 2e-6


def test_prefill_in_chunks_and_decode_equal_the_formulas(spec: ModelSpec) -> None:
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 11, batch=2)
    logits = through_caches(decoder, tokens, (5, 3, 1, 1, 1))
    assert relative_l2(logits, restated(decoder, tokens)) < 2e-6


def test_the_papers_variants_agree_to_float64_precision(paper_variant: ModelSpec) -> None:
    decoder, tokens = tiny_decoder(paper_variant).double(), token_ids(paper_variant, 9)
    expected = restated(decoder, tokens)
    assert relative_l2(decoder(tokens, START), expected) < 1e-13
    cached = through_caches(decoder, tokens, (6, 1, 1, 1), torch.float64)
    assert relative_l2(cached, expected) < 1e-13


@st.composite
def shapes(draw: st.DrawFn) -> tuple[ModelSpec, tuple[int, ...], int]:
    """A model of any sharing and shape, the chunks it reads, and a batch size."""
    sharing = draw(st.sampled_from(Sharing))
    kv_heads = draw(st.integers(1, 4))
    spec = replace(
        draw(st.sampled_from([PAPER_SPEC, LLAMA_SPEC])),
        vocab_size=draw(st.integers(2, 50)),
        layers=draw(st.integers(1, 3)),
        hidden_size=draw(st.integers(1, 40)),
        heads=kv_heads if sharing.query_is_key else kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 10)),
        ffn_size=draw(st.integers(1, 50)),
        max_positions=20,
        sharing=sharing,
        # Below this, a norm over one or two equal numbers amplifies rounding without limit.
        norm_eps=1e-2,
        tied_head=draw(st.booleans()),
        window=draw(st.integers(0, 5)),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
    )
    chunks = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return spec, tuple(chunks), draw(st.integers(1, 3))


@settings(max_examples=60)
@given(shape=shapes(), seed=st.integers(0, 99))
def test_any_shape_equals_the_formulas(
    shape: tuple[ModelSpec, tuple[int, ...], int], seed: int
) -> None:
    spec, chunks, batch = shape
    decoder, tokens = tiny_decoder(spec, seed), token_ids(spec, sum(chunks), batch, seed)
    expected = restated(decoder, tokens)
    assert relative_l2(decoder(tokens, START), expected) < 1e-5
    assert relative_l2(through_caches(decoder, tokens, chunks), expected) < 1e-5


def test_a_window_needs_no_longer_cache_than_itself() -> None:
    spec = LLAMA["llama Q-GQA-2, window"]
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 20)
    caches = new_caches(spec, length=spec.window)
    steps = [decoder(tokens[:, t : t + 1], torch.tensor([t]), caches) for t in range(20)]
    assert relative_l2(torch.cat(steps, dim=1), restated(decoder, tokens)) < 2e-6


def test_a_float16_cache_stays_near_the_float32_one(one_tensor_spec: ModelSpec) -> None:
    decoder, tokens = tiny_decoder(one_tensor_spec), token_ids(one_tensor_spec, 11)
    logits = through_caches(decoder, tokens, (8, 1, 1, 1), torch.float16)
    assert 0 < relative_l2(logits, restated(decoder, tokens)) < 2e-3


@pytest.mark.parametrize("name", ["Q-K=V", "Q-GQA-2", "Q-MQA", "Q=K=V"])
def test_only_as_many_tensors_are_cached_as_the_sharing_needs(name: str) -> None:
    caches = new_caches(PAPER[name], length=8)
    assert all(isinstance(cache, OneTensorCache) for cache in caches)
    baseline = new_caches(PAPER[name].with_sharing(Sharing.QKV), length=8)
    assert not any(isinstance(cache, OneTensorCache) for cache in baseline)


@pytest.mark.parametrize("name", ["Q-K=V", "Q-GQA-2", "Q-MQA"])
def test_without_rope_the_shared_bias_folds_into_the_output_bias(name: str) -> None:
    """b_k shifts all scores of a query alike, and every value by b_k."""
    decoder, tokens = tiny_decoder(PAPER[name]).double(), token_ids(PAPER[name], 9)
    expected = decoder(tokens, START)
    for layer in decoder.layers:
        attention = layer.self_attn
        shift = attention.k_proj.bias.reshape(-1, 1, decoder.spec.head_dim)
        shift = shift.expand(-1, decoder.spec.group_size, -1).flatten()
        attention.o_proj.bias += attention.o_proj.weight @ shift
        attention.k_proj.bias.zero_()
    assert relative_l2(decoder(tokens, START), expected) < 1e-13


def test_every_parameter_gets_a_gradient(spec: ModelSpec) -> None:
    decoder = tiny_decoder(spec).requires_grad_(True)
    decoder(token_ids(spec, 7), START).logsumexp(-1).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_decoder_is_built_from_tensors_without_copying_them(spec: ModelSpec) -> None:
    source = tiny_decoder(spec)
    decoder, tokens = build_decoder(spec, source.state_dict()), token_ids(spec, 5)
    assert all(
        value.data_ptr() == source.state_dict()[name].data_ptr()
        for name, value in decoder.state_dict().items()
    )
    assert torch.equal(decoder(tokens, START), source(tokens, START))


def test_rotary_tables_cover_the_context_asked_for() -> None:
    spec = LLAMA["llama Q-K=V"]
    assert tiny_decoder(spec, context=7).cos.shape == (7, spec.head_dim // 2)
    assert tiny_decoder(spec).cos.shape == (spec.max_positions, spec.head_dim // 2)


def test_a_missing_cache_is_refused(spec: ModelSpec) -> None:
    caches = new_caches(spec, length=8)[:-1]
    with pytest.raises(ValueError, match="shorter"):
        tiny_decoder(spec)(token_ids(spec, 3), START, caches)


def test_without_caches_a_sequence_may_start_at_any_position() -> None:
    """Rotary attention sees distances alone, so that a shifted sequence has the same logits."""
    spec = replace(LLAMA["llama Q-K=V"], rope=Rope(theta=100.0))
    decoder, tokens = tiny_decoder(spec), token_ids(spec, 9)
    shifted = decoder(tokens, torch.tensor([30]))
    assert relative_l2(shifted, decoder(tokens, START).double()) < 1e-5


PAPER_COUNTS = {
    "300m/qkv": 305.53,
    "300m/q-k=v": 284.54,
    "300m/q=k-v": 284.54,
    "300m/q=k=v": 263.55,
    "1.2b/qkv": 1215,
    "1.2b/q-k=v": 1123,
    "1.2b/gqa-8": 1077,
    "1.2b/mqa": 1036,
    "1.2b/q-mqa": 1033,
}


@pytest.mark.parametrize(("name", "millions"), PAPER_COUNTS.items())
def test_parameter_counts_are_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        decoder = Decoder(paper_model(name))
    count = sum(parameter.numel() for parameter in decoder.parameters()) / 1e6
    assert round(count, 2 if millions < 1000 else 0) == millions

"""The exported program computes the model, in every variant and cache format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.verify import difference
from onekv.quantize.numbers import Number
from onekv.runtime.executorch_session import ExecutorchSession
from onekv.runtime.sessions import ContextFullError, Session
from tests.specs import LLAMA, PAPER, SPECS, tiny_decoder, token_ids
from tests.targets.executorch.conftest import CONTEXT, Lowered, slow

SHARED = LLAMA["llama Q-GQA-2"]
# Both kinds of norm, position, activation and cache; exports take seconds, so the rest is slow.
KINDS = {name: replace(SPECS[name], layers=1) for name in ("Q-GQA-2", "llama GQA-2")}
CACHES = {Number.FP16: 2e-3, Number.INT8: 2e-2, Number.INT4: 2e-1}


def in_pieces(session: Session, tokens: list[int]) -> np.ndarray:
    """Logits of 48 tokens fed in pieces, one longer than a call."""
    rows, at = [], 0
    for size in (13, 1, 1, 20, 1, 12):
        rows.append(session.step(tokens[at : at + size]))
        at += size
    return np.concatenate(rows)


def relative_l2(lowered: Lowered, spec: ModelSpec, **changes: object) -> float:
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    want = DecoderSession(tiny_decoder(spec), CONTEXT).step(tokens)
    session = ExecutorchSession(lowered(spec, **changes), CONTEXT)
    return difference(in_pieces(session, tokens), want).relative_l2


@pytest.mark.parametrize("spec", [SHARED, *KINDS.values()], ids=["two layers", *KINDS])
def test_prefill_and_decode_in_pieces_equal_the_model(lowered: Lowered, spec: ModelSpec) -> None:
    assert relative_l2(lowered, spec) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_variant_equals_the_model(lowered: Lowered, spec: ModelSpec) -> None:
    assert relative_l2(lowered, spec) <= 1e-5


@pytest.mark.parametrize("cache", [Number.INT4, *slow(Number.FP16, Number.INT8)])
def test_a_narrow_cache_stays_within_its_rounding(lowered: Lowered, cache: Number) -> None:
    error = relative_l2(lowered, replace(SHARED, layers=1), cache=cache)
    assert 1e-5 < error <= CACHES[cache]


def test_a_prompt_longer_than_one_call_goes_through_in_several(lowered: Lowered) -> None:
    spec = replace(PAPER["Q-GQA-2"], layers=1)
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    path = lowered(spec)
    session = ExecutorchSession(path, CONTEXT)
    session._chunk = 7
    whole = ExecutorchSession(path, CONTEXT).step(tokens)
    np.testing.assert_allclose(session.step(tokens), whole, rtol=1e-4, atol=1e-4)


def test_overflow_is_refused_and_the_session_goes_on(lowered: Lowered) -> None:
    tokens = token_ids(SHARED, CONTEXT)[0].tolist()
    session = ExecutorchSession(lowered(SHARED), CONTEXT)
    head = session.step(tokens[:40])
    with pytest.raises(ContextFullError, match="49 tokens do not fit"):
        session.step(tokens[:9])
    got = np.concatenate([head, session.step(tokens[40:])])
    want = DecoderSession(tiny_decoder(SHARED), CONTEXT).step(tokens)
    assert difference(got, want).relative_l2 <= 1e-5


def test_a_reset_session_forgets_what_it_read(lowered: Lowered) -> None:
    session = ExecutorchSession(lowered(SHARED), CONTEXT)
    first = session.step([5, 6, 7])
    session.reset()
    assert session.position == 0
    np.testing.assert_array_equal(session.step([5, 6, 7]), first)

"""The exported file computes the model, in every variant and number format, in both forms."""

from __future__ import annotations

import numpy as np
import pytest

from onekv.export.model.session import DecoderSession
from onekv.export.model.spec import ModelSpec
from onekv.export.verify import difference
from onekv.quantize.numbers import Number
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession
from onekv.runtime.sessions import ContextFullError, Session
from tests.specs import LLAMA, PAPER, tiny_decoder, token_ids
from tests.targets.onnx.conftest import CONTEXT, Lowered

# None: the kernel, or the file's own body for the one shape that the kernel does not have.
KERNEL = pytest.mark.parametrize("kernel", [None, False], ids=["kernel", "stock"])
HALF = [PAPER["Q-GQA-2"], PAPER["QKV"], LLAMA["llama Q-GQA-2"], LLAMA["llama GQA-2"]]


def chunks_through(session: Session, tokens: list[int], sizes: list[int]) -> np.ndarray:
    """Logits of `tokens` fed in pieces of `sizes`."""
    rows, at = [], 0
    for size in sizes:
        rows.append(session.step(tokens[at : at + size]))
        at += size
    return np.concatenate(rows)


def relative_l2(
    lowered: Lowered, spec: ModelSpec, *numbers: Number, kernel: bool | None = None
) -> float:
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    want = DecoderSession(tiny_decoder(spec), CONTEXT).step(tokens)
    session = OnnxSession(lowered(spec, *numbers), CONTEXT, OnnxOptions(kernel=kernel))
    assert session.kernel == (kernel is None and spec.head_dim % 16 == 0)
    got = chunks_through(session, tokens, [13, 1, 1, 20, 1, 12])
    return difference(got, want).relative_l2


@KERNEL
def test_prefill_and_decode_in_pieces_equal_the_model_in_fp32(
    lowered: Lowered, spec: ModelSpec, kernel: bool | None
) -> None:
    assert relative_l2(lowered, spec, kernel=kernel) <= 1e-5


@KERNEL
@pytest.mark.parametrize("half", HALF, ids=lambda spec: spec.variant)
def test_fp16_weights_and_cache_stay_within_their_rounding(
    lowered: Lowered, half: ModelSpec, kernel: bool | None
) -> None:
    error = relative_l2(lowered, half, Number.FP16, kernel=kernel)
    assert 1e-5 < error <= 5e-3


@KERNEL
def test_fp32_weights_go_with_an_fp16_cache(lowered: Lowered, kernel: bool | None) -> None:
    spec = LLAMA["llama Q-GQA-2"]
    error = relative_l2(lowered, spec, Number.FP32, Number.FP16, kernel=kernel)
    assert 1e-6 < error <= 2e-3


def test_overflow_is_refused_and_the_session_goes_on(lowered: Lowered) -> None:
    spec = LLAMA["llama Q-GQA-2"]
    tokens = token_ids(spec, CONTEXT)[0].tolist()
    session = OnnxSession(lowered(spec), CONTEXT)
    head = session.step(tokens[:40])
    with pytest.raises(ContextFullError, match="49 tokens do not fit"):
        session.step(tokens[:9])
    rest = session.step(tokens[40:])
    want = DecoderSession(tiny_decoder(spec), CONTEXT).step(tokens)
    assert difference(np.concatenate([head, rest]), want).relative_l2 <= 1e-5


def test_a_reset_session_forgets_what_it_read(lowered: Lowered) -> None:
    spec = LLAMA["llama Q-GQA-2"]
    session = OnnxSession(lowered(spec), CONTEXT)
    first = session.step([5, 6, 7])
    session.reset()
    assert session.position == 0
    np.testing.assert_array_equal(session.step([5, 6, 7]), first)

"""Generation over any session: prefill, sampling, the ways to end, and text from tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onekv.errors import UsageError
from onekv.runtime.generate import (
    Generation,
    Sampling,
    Stop,
    choose,
    generate,
    prefill,
    stream_text,
)
from onekv.runtime.sessions import ContextFullError, Logits, check_room
from tests.builders.sample import byte_tokenizer


class Counter:
    """A session whose likeliest next token is the last one plus one."""

    def __init__(self, context: int = 32, vocab: int = 50) -> None:
        self.context, self.position, self.cache_bytes, self.vocab = context, 0, 0, vocab
        self.steps: list[int] = []

    def step(self, tokens: Sequence[int]) -> Logits:
        check_room(self, len(tokens))
        self.position += len(tokens)
        self.steps.append(len(tokens))
        logits = np.zeros((len(tokens), self.vocab), np.float32)
        logits[np.arange(len(tokens)), (np.asarray(tokens) + 1) % self.vocab] = 5
        return logits

    def reset(self) -> None:
        self.position = 0


def answer(session: Counter, prompt: list[int], **options: object) -> Generation:
    result = Generation(len(prompt))
    list(generate(session, result, prompt, Sampling(), **options))  # type: ignore[arg-type]
    return result


def test_greedy_tokens_follow_the_likeliest_until_asked_to_stop() -> None:
    result = answer(Counter(), [3, 4], max_tokens=4)
    assert (result.tokens, result.stop) == ([5, 6, 7, 8], Stop.LENGTH)


def test_the_end_of_text_token_ends_and_is_not_part_of_the_text() -> None:
    result = answer(Counter(), [3, 4], eos=(7, 9))
    assert (result.tokens, result.stop) == ([5, 6], Stop.EOS)


def test_a_full_context_ends_cleanly_with_every_position_used() -> None:
    session = Counter(context=6)
    result = answer(session, [1, 2, 3])
    assert (result.tokens, result.stop, session.position) == ([4, 5, 6, 7], Stop.CONTEXT, 6)


def test_a_prompt_as_long_as_the_context_still_gives_one_token() -> None:
    result = answer(Counter(context=3), [1, 2, 3])
    assert (result.tokens, result.stop) == ([4], Stop.CONTEXT)


def test_a_prompt_longer_than_the_context_is_refused_before_anything_runs() -> None:
    session = Counter(context=3)
    with pytest.raises(ContextFullError, match="4 tokens do not fit"):
        answer(session, [1, 2, 3, 4])
    assert session.steps == []


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="no tokens"):
        answer(Counter(), [])


def test_a_long_prompt_is_read_in_chunks() -> None:
    session = Counter(context=100)
    logits = prefill(session, list(range(10)), chunk=4)
    assert session.steps == [4, 4, 2]
    assert logits.argmax() == 10


def test_timings_separate_the_first_token_from_the_rest() -> None:
    result = answer(Counter(), [1], max_tokens=5)
    assert result.time_to_first_token > 0
    assert result.decode_tokens_per_second == pytest.approx(4 / result.decode_time)


def test_sampling_follows_the_temperatures_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    random = np.random.default_rng(0)
    drawn = [choose(logits, Sampling(temperature=1.0), random) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.5, 0.3, 0.2], atol=0.03)


def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    random = np.random.default_rng(0)
    for top_p, kept in ((0.4, {1}), (0.6, {1, 2}), (1.0, {0, 1, 2})):
        drawn = {choose(logits, Sampling(1.0, top_p), random) for _ in range(300)}
        assert drawn == kept


def test_a_seed_makes_a_sample_repeatable() -> None:
    def sample(seed: int) -> list[int]:
        result = Generation(1)
        return list(generate(Counter(), result, [1], Sampling(5.0, 1.0, seed), (), 20))

    assert sample(1) == sample(1) != sample(2)


@pytest.mark.parametrize("options", [(-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, 1.5)])
def test_odd_sampling_options_are_refused(options: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="is not"):
        Sampling(*options)


def test_characters_split_over_tokens_come_out_whole() -> None:
    tokenizer, text = byte_tokenizer(), "naïve 東京 🜁!"
    ids = tokenizer.encode(text).ids
    pieces = list(stream_text(tokenizer, ids[:2], iter(ids[2:])))
    assert "".join(pieces) == text[2:]
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) == len(text) - 2

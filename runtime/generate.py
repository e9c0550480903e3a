"""Text from a session: prefill in chunks, decode with a sampler, streamed as it comes."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from onekv.errors import UsageError
from onekv.runtime.sessions import Logits, Session, check_room

# Bounds the logits [chunk, vocab] that exist at once while a prompt is read.
PREFILL_CHUNK = 256


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 is greedy. `top_p` keeps the most likely tokens of that total mass."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and np.isfinite(self.temperature)):
            raise UsageError(f"temperature {self.temperature} is not a number of 0 or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p {self.top_p} is not above 0 and at most 1")


class Stop(enum.StrEnum):
    """Why a generation ended."""

    EOS = "end of text"
    CONTEXT = "context full"
    LENGTH = "as many tokens as asked for"


@dataclass
class Generation:
    """One answer and its timings; filled while it is streamed. Times are seconds."""

    prompt_tokens: int
    tokens: list[int] = field(default_factory=list)
    stop: Stop | None = None
    time_to_first_token: float = 0.0
    decode_time: float = 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, which belongs to the prefill, by the time they took."""
        return (len(self.tokens) - 1) / self.decode_time if self.decode_time else 0.0


def prefill(session: Session, tokens: Sequence[int], chunk: int = PREFILL_CHUNK) -> Logits:
    """Append a prompt and give the logits after its last token [vocab].

    Raises:
        ContextFullError: the prompt does not fit; nothing was appended.
    """
    check_room(session, len(tokens))
    last: Logits | None = None
    for start in range(0, len(tokens), chunk):
        last = session.step(tokens[start : start + chunk])[-1]
    if last is None:
        raise UsageError("the prompt has no tokens", "Give a prompt of at least one token.")
    return last


def choose(logits: Logits, sampling: Sampling, random: np.random.Generator) -> int:
    """The next token's id from logits [vocab]."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / sampling.temperature
    mass = np.exp(scaled - scaled.max())
    mass /= mass.sum()
    if sampling.top_p < 1:
        order = np.argsort(-mass, kind="stable")
        before = np.cumsum(mass[order]) - mass[order]
        mass[order[before >= sampling.top_p]] = 0
        mass /= mass.sum()
    return int(random.choice(len(mass), p=mass))


def generate(
    session: Session,
    generation: Generation,
    prompt: Sequence[int],
    sampling: Sampling,
    eos: Sequence[int] = (),
    max_tokens: int | None = None,
) -> Iterator[int]:
    """Yield token ids until the text ends, the context is full, or `max_tokens` are out.

    `generation` records tokens, timings and the reason for the end as they come.
    """
    random = np.random.default_rng(sampling.seed)
    begin = time.perf_counter()
    logits = prefill(session, prompt)
    while True:
        token = choose(logits, sampling, random)
        now = time.perf_counter()
        if not generation.tokens:
            generation.time_to_first_token = now - begin
        generation.decode_time = now - begin - generation.time_to_first_token
        if token in eos:
            generation.stop = Stop.EOS
            return
        generation.tokens.append(token)
        yield token
        if max_tokens is not None and len(generation.tokens) >= max_tokens:
            generation.stop = Stop.LENGTH
            return
        if session.position >= session.context:
            generation.stop = Stop.CONTEXT
            return
        logits = session.step([token])[-1]


def stream_text(
    tokenizer: Tokenizer, prompt: Sequence[int], tokens: Iterator[int]
) -> Iterator[str]:
    """Text pieces of `tokens`, whole characters only, spaced as they follow the prompt."""
    stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
    for token in tokens:
        piece = stream.step(tokenizer, token)
        if piece:
            yield piece

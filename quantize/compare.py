"""How much quality a stored form costs: each session beside the source, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onekv.errors import UsageError
from onekv.quantize.quality import MIN_TOKENS
from onekv.runtime.generate import PREFILL_CHUNK
from onekv.runtime.sessions import Logits, Session

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """What one session makes of a text in windows of `window` tokens, `tokens` of them scored.

    Against the source model: `increase` of the perplexity as a fraction, `increase_error` its
    standard error, `kl` the mean KL(source || session) in nats, and `top1` the share of
    positions where both hold the same token for the likeliest. All are None without a source.
    """

    window: int
    tokens: int
    perplexity: float
    increase: float | None = None
    increase_error: float | None = None
    kl: float | None = None
    top1: float | None = None


@dataclass
class _Tally:
    losses: list[Floats] = field(default_factory=list)
    kl: list[Floats] = field(default_factory=list)
    same: list[NDArray[np.bool_]] = field(default_factory=list)


def compare(
    sessions: Sequence[Session],
    source: Session | None,
    tokens: Sequence[int],
    window: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Quality, ...]:
    """Run all sessions side by side over a text; no logits are kept beyond a chunk.

    Windows do not overlap; every token but each window's first is scored.

    Raises:
        UsageError: the text has too few tokens to say anything, or a session holds fewer than
            `window`.
    """
    everyone = [*sessions, source] if source is not None else list(sessions)
    if len(tokens) < max(MIN_TOKENS, window):
        raise UsageError(
            f"{len(tokens)} tokens are too few for windows of {window}",
            f"Give a text of at least {max(MIN_TOKENS, window)} tokens, or shorter windows.",
        )
    shortest = min(session.context for session in everyone)
    if window > shortest:
        raise UsageError(
            f"windows of {window} tokens: a bundle here holds {shortest}",
            f"Choose --window from 2 to {shortest}, or export with a larger --context.",
        )
    tallies = [_Tally() for _ in sessions]
    reference: list[Floats] = []
    # A last window that is shorter would be another context length.
    whole = len(tokens) - len(tokens) % window
    for start in range(0, whole, window):
        for session in everyone:
            session.reset()
        for chunk, targets in _chunks(tokens[start : start + window]):
            want = None if source is None else _log_softmax(source.step(chunk), len(targets))
            if want is not None:
                reference.append(_losses(want, targets))
            for session, tally in zip(sessions, tallies):
                _add(tally, _log_softmax(session.step(chunk), len(targets)), want, targets)
        progress(start + window, whole)
    return tuple(_quality(window, tally, reference) for tally in tallies)


def _chunks(tokens: Sequence[int]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Pieces of a window with the tokens that follow theirs."""
    return [
        (tokens[at : at + PREFILL_CHUNK], tokens[at + 1 : at + 1 + PREFILL_CHUNK])
        for at in range(0, len(tokens), PREFILL_CHUNK)
    ]


def _log_softmax(logits: Logits, rows: int) -> Floats:
    wide = logits[:rows].astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def _losses(log_probabilities: Floats, targets: Sequence[int]) -> Floats:
    losses: Floats = -log_probabilities[np.arange(len(targets)), np.asarray(targets, int)]
    return losses


def _add(tally: _Tally, got: Floats, want: Floats | None, targets: Sequence[int]) -> None:
    tally.losses.append(_losses(got, targets))
    if want is not None:
        tally.kl.append((np.exp(want) * (want - got)).sum(axis=-1))
        tally.same.append(got.argmax(axis=-1) == want.argmax(axis=-1))


def _quality(window: int, tally: _Tally, reference: Sequence[Floats]) -> Quality:
    losses = np.concatenate(tally.losses)
    perplexity = float(np.exp(losses.mean()))
    if not reference:
        return Quality(window, len(losses), perplexity)
    difference = losses - np.concatenate(reference)
    increase = float(np.expm1(difference.mean()))
    return Quality(
        window=window,
        tokens=len(losses),
        perplexity=perplexity,
        increase=increase,
        # Of paired losses: what the text's own difficulty varies by is in both and cancels.
        increase_error=float(difference.std() / len(losses) ** 0.5 * (1 + increase)),
        kl=float(max(np.concatenate(tally.kl).mean(), 0.0)),
        top1=float(np.concatenate(tally.same).mean()),
    )

"""What a model's numbers are worth: perplexity, measured through any session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from onekv.errors import UsageError
from onekv.runtime.generate import PREFILL_CHUNK
from onekv.runtime.sessions import Logits, Session

MIN_TOKENS = 32


def token_losses(logits: Logits, targets: Sequence[int]) -> np.ndarray:
    """Negative log-likelihood in nats [S] of targets [S] under logits [S, vocab]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
    losses: np.ndarray = total - wide[np.arange(len(targets)), np.asarray(targets)]
    return losses


def perplexity(
    session: Session,
    tokens: Sequence[int],
    window: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """exp of the mean loss over non-overlapping windows, every token but each first one scored.

    `window` is in tokens, the session's context by default. `progress` is called with the
    tokens done and the tokens in all.

    Raises:
        UsageError: the text has too few tokens to say anything.
    """
    if len(tokens) < MIN_TOKENS:
        raise UsageError(
            f"{len(tokens)} tokens are too few for a perplexity",
            f"Give a text of at least {MIN_TOKENS} tokens.",
        )
    width = min(window or session.context, session.context)
    losses: list[np.ndarray] = []
    for start in range(0, len(tokens), width):
        losses.extend(_window_losses(session, tokens[start : start + width]))
        if progress:
            progress(min(start + width, len(tokens)), len(tokens))
    return float(np.exp(np.concatenate(losses).mean()))


def _window_losses(session: Session, tokens: Sequence[int]) -> Iterator[np.ndarray]:
    session.reset()
    for start in range(0, len(tokens), PREFILL_CHUNK):
        chunk = tokens[start : start + PREFILL_CHUNK]
        targets = tokens[start + 1 : start + 1 + len(chunk)]
        logits = session.step(chunk)
        yield token_losses(logits[: len(targets)], targets)

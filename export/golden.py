"""The source model's answer that a bundle is compared with: made, replayed, kept in the bundle.

The source model's tokens are fed to the bundle (teacher forcing), so that one near tie does
not turn the rest of the comparison into noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from onekv.errors import BundleError
from onekv.export.targets import Progress
from onekv.runtime.sessions import Logits, Session

GREEDY_TOKENS = 64
RECORD = "parity.safetensors"

# Rows of logits kept in a bundle, so that it can be checked where its source is not at hand.
_KEPT_PREFILL, _KEPT_DECODE = 4, 12


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Golden:
    """What the source model computed.

    tokens: the prompt and then its greedy continuation. logits [rows, vocab] are those after
    the tokens at `positions` [rows]. margins [tokens]: by how much the best logit leads.
    drift: relative L2 between these logits and the source's own after the last bits of its
    sums were disturbed; 0 where nothing is rounded to integers on the way.
    """

    tokens: NDArray[np.int64]
    prompt_length: int
    positions: NDArray[np.int64]
    logits: Logits
    margins: NDArray[np.float32]
    drift: float = 0.0


def golden_run(source: Session, prompt: Sequence[int], progress: Progress = ignore) -> Golden:
    """Run the source model: prefill `prompt`, then decode greedily as far as the context goes."""
    source.reset()
    greedy = min(GREEDY_TOKENS, source.context - len(prompt))
    rows = [source.step(prompt)]
    tokens = list(prompt)
    for done in range(greedy):
        tokens.append(int(rows[-1][-1].argmax()))
        rows.append(source.step(tokens[-1:]))
        progress(done + 1, greedy)
    logits = np.concatenate(rows)
    best = np.partition(logits, -2, axis=-1)[:, -2:]
    return Golden(
        tokens=np.asarray(tokens, np.int64),
        prompt_length=len(prompt),
        positions=np.arange(len(tokens)),
        logits=logits,
        margins=best[:, 1] - best[:, 0],
    )


def replay(
    session: Session, golden: Golden, progress: Progress = ignore, singles: int | None = None
) -> Logits:
    """The bundle's logits [tokens, vocab] for golden tokens: prefill in two parts, then decode.

    `singles` tokens are decoded one by one (None: all), the rest in one call.
    """
    session.reset()
    tokens = golden.tokens.tolist()
    middle = golden.prompt_length // 2
    parts = [tokens[:middle], tokens[middle : golden.prompt_length]]
    answer = tokens[golden.prompt_length :]
    single = len(answer) if singles is None else singles
    parts += [[token] for token in answer[:single]]
    parts.append(answer[single:])
    rows = []
    for done, part in enumerate(parts):
        if part:
            rows.append(session.step(part))
        progress(done + 1, len(parts))
    return np.concatenate(rows)


def save_golden(golden: Golden, folder: Path) -> None:
    """Keep the tokens and a few rows of logits in a bundle."""
    decode = np.arange(golden.prompt_length, len(golden.tokens))
    spread = np.unique(np.linspace(0, len(decode) - 1, _KEPT_DECODE).astype(int))
    first = max(0, golden.prompt_length - _KEPT_PREFILL)
    kept = np.concatenate([np.arange(first, golden.prompt_length), decode[spread]])
    content = save(
        {
            "tokens": golden.tokens,
            "prompt_length": np.asarray([golden.prompt_length]),
            "positions": kept,
            "logits": golden.logits[kept],
            "margins": golden.margins,
            "drift": np.asarray([golden.drift]),
        }
    )
    (folder / RECORD).write_bytes(content)


def load_golden(path: Path) -> Golden:
    """The record that `save_golden` wrote.

    Raises:
        BundleError: the file is not such a record.
    """
    try:
        record = load_file(path)
        golden = Golden(
            tokens=record["tokens"],
            prompt_length=int(record["prompt_length"][0]),
            positions=record["positions"],
            logits=record["logits"],
            margins=record["margins"],
            drift=float(record["drift"][0]),
        )
    except (SafetensorError, KeyError, IndexError, OSError) as error:
        raise BundleError(f"{path} is not a parity record: {error}") from error
    if not _is_consistent(golden):
        raise BundleError(f"{path} contradicts itself", "Export the model again.")
    return golden


def _is_consistent(golden: Golden) -> bool:
    """Whether the arrays of a record that nobody vouches for fit together."""
    count = len(golden.tokens)
    return (
        golden.tokens.dtype == golden.positions.dtype == np.int64
        and golden.tokens.shape == golden.margins.shape == (count,)
        and 0 < golden.prompt_length < count
        and golden.logits.ndim == 2
        and golden.positions.shape == (len(golden.logits),)
        and bool((golden.positions >= 0).all() and (golden.positions < count).all())
        and bool((golden.positions < golden.prompt_length).any())
        and bool((golden.positions >= golden.prompt_length).any())
        and bool((golden.tokens >= 0).all() and (golden.tokens < golden.logits.shape[1]).all())
    )

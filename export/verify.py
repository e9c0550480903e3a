"""Does a bundle compute its source model? Logits, greedy tokens, and a record of the answer.

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
from onekv.export.manifest import Difference, Parity
from onekv.export.options import ExportOptions, Ops, Target
from onekv.export.plan import integer_rules
from onekv.export.targets import Progress
from onekv.quantize.numbers import ROUNDED, Number
from onekv.runtime.sessions import Logits, Session, open_session

GREEDY_TOKENS = 64
# Integer weights beside float activations are unpacked on each call, whatever its tokens.
_EXACT_SINGLES = 8
RECORD = "parity.safetensors"

# Rows of logits kept in a bundle, so that it can be checked where its source is not at hand.
_KEPT_PREFILL, _KEPT_DECODE = 4, 12

# Relative L2 that each number format is allowed: rounding, with room for other orders of sums.
# Integers are compared with a source whose weights were rounded in the same way.
TOLERANCE = {Number.FP32: 1e-5, Number.FP16: 5e-3, Number.INT8: 5e-3, Number.INT4: 1e-2}
# An element of a row that falls on the other side of a half step moves by a whole one, and later
# layers multiply that: SmolLM2's 30 layers come to 1e-2 in int8, in the kernel and the body alike.
CACHE_TOLERANCE = {**TOLERANCE, Number.INT8: 2e-2, Number.INT4: 1e-1}

# Where activations are rounded too: a sum in another order can end on the other side of a step.
ROUNDED_ACTIVATIONS = 2e-2
# Layers multiply that: 22 of random weights come to 2.6e-2, SmolLM2's 30 with outliers to 6e-2.
# Only greedy tokens would then show a query that is turned one position too far (4e-2).
_ROUNDED_IN_DEPTH = 1e-1


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Golden:
    """What the source model computed.

    tokens: the prompt and then its greedy continuation. logits [rows, vocab] are those after
    the tokens at `positions` [rows]. margins [tokens]: by how much the best logit leads.
    """

    tokens: NDArray[np.int64]
    prompt_length: int
    positions: NDArray[np.int64]
    logits: Logits
    margins: NDArray[np.float32]


def golden_run(source: Session, prompt: Sequence[int], progress: Progress = _ignore) -> Golden:
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
    session: Session, golden: Golden, progress: Progress = _ignore, singles: int | None = None
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


def difference(got: Logits, want: Logits) -> Difference:
    """Compare logits [rows, vocab]. kl is the mean KL(want || got) in nats."""
    error = got.astype(np.float64) - want
    log_got, log_want = _log_softmax(got), _log_softmax(want)
    kl = (np.exp(log_want) * (log_want - log_got)).sum(axis=-1).mean()
    return Difference(
        positions=len(want),
        relative_l2=float(np.linalg.norm(error) / np.linalg.norm(want.astype(np.float64))),
        max_abs=float(np.abs(error).max()),
        argmax_agreement=float((got.argmax(-1) == want.argmax(-1)).mean()),
        kl=float(max(kl, 0.0)),
    )


def check_parity(
    session: Session,
    golden: Golden,
    options: ExportOptions,
    against: str,
    progress: Progress = _ignore,
) -> Parity:
    """Replay golden tokens through a bundle and judge the result."""
    slow = options.target is Target.ONNX and options.weights in ROUNDED
    got = replay(session, golden, progress, _EXACT_SINGLES if slow else None)
    is_decode = golden.positions >= golden.prompt_length
    parts = [
        difference(got[golden.positions[chosen]], golden.logits[chosen])
        for chosen in (~is_decode, is_decode)
    ]
    equal, unequal = _greedy(got, golden, max(part.max_abs for part in parts))
    tolerance = _tolerance(options)
    reasons = [
        f"{name}: relative L2 {part.relative_l2:.2e} is above {tolerance:.0e}"
        for name, part in zip(("prefill", "decode"), parts)
        # Written so that NaN fails.
        if not part.relative_l2 <= tolerance
    ]
    if unequal:
        reasons.append(f"{unequal} greedy tokens differ where the source model is not near a tie")
    return Parity(
        against=against,
        prefill=parts[0],
        decode=parts[1],
        greedy_tokens=len(golden.tokens) - golden.prompt_length,
        greedy_equal=equal,
        tolerance=tolerance,
        passed=not reasons,
        reasons=tuple(reasons),
        operators=session.operators,
    )


def check_bundle(
    entry: Path, golden: Golden, options: ExportOptions, against: str, progress: Progress = _ignore
) -> Parity:
    """Check a bundle's file as it runs here, and in the form that devices without our kernel run.

    Activations that the file rounds beside integer weights stay floats where the runtime can be
    told so: that rounding is a matter of quality, and would hide a graph that is wrong.

    Raises:
        OnekvError: the target's runtime is not installed, or refuses the file.
    """
    session = open_session(options.target, entry, options.context, exact=True)
    parity = check_parity(session, golden, options, against, progress)
    if options.target is not Target.ONNX or not session.kernel:
        return parity
    session = open_session(options.target, entry, options.context, kernel=False, exact=True)
    stock = check_parity(session, golden, options, against, progress)
    reasons = (f"with {stock.operators}: {reason}" for reason in stock.reasons)
    return parity.model_copy(
        update={
            "stock": stock,
            "passed": parity.passed and stock.passed,
            "reasons": (*parity.reasons, *reasons),
        }
    )


def _tolerance(options: ExportOptions) -> float:
    tolerance = max(TOLERANCE[options.weights], CACHE_TOLERANCE[options.cache])
    rounds = options.weights in ROUNDED and integer_rules(options).rounds_activations
    # Stock operators round queries to meet rows of integers.
    if rounds or (options.ops is Ops.STOCK and options.cache in ROUNDED):
        return max(tolerance, _ROUNDED_IN_DEPTH)
    return tolerance


def _greedy(got: Logits, golden: Golden, max_abs: float) -> tuple[int, int]:
    """How many greedy choices are the source's, and how many differ without a near tie."""
    chosen = got[golden.prompt_length - 1 : -1].argmax(-1)
    same = chosen == golden.tokens[golden.prompt_length :]
    margins = golden.margins[golden.prompt_length - 1 : -1]
    return int(same.sum()), int((~same & (margins > 2 * max_abs)).sum())


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result


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

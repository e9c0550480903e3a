"""Does a bundle compute its source model? Logits and greedy tokens, and a verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onekv.export.calibration_text import calibrates_activations
from onekv.export.golden import Golden, ignore, replay
from onekv.export.manifest import Difference, Parity
from onekv.export.options import ExportOptions, Ops, Target
from onekv.export.targets import Progress
from onekv.quantize.numbers import ROUNDED, Number
from onekv.runtime.sessions import Logits, Session, open_session

# Integer weights beside float activations are unpacked on each call, whatever its tokens.
_EXACT_SINGLES = 8

# Relative L2 that each number format is allowed: rounding, with room for other orders of sums.
# Integers are compared with a source that rounds in the same way.
TOLERANCE = {
    Number.FP32: 1e-5,
    Number.FP16: 5e-3,
    Number.INT16: 5e-3,
    Number.INT8: 5e-3,
    Number.INT4: 1e-2,
}
# Activations in fixed ranges of 16 bits: outliers of SmolLM2 cost 6e-2, a wrong range much more.
_FIXED_RANGES = 2e-1
# Stock operators round queries to meet rows of integers, which the source does not.
_ROUNDED_QUERIES = 2e-2
# A bundle and the disturbed source are two independent neighbours of the source model.
_DRIFT_MARGIN = 2.0


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
    progress: Progress = ignore,
    tolerance: float | None = None,
) -> Parity:
    """Replay golden tokens through a bundle and judge the result.

    `tolerance` is the relative L2 that is allowed, None for what the number formats allow.
    """
    slow = options.target is Target.ONNX and options.weights in ROUNDED
    got = replay(session, golden, progress, _EXACT_SINGLES if slow else None)
    is_decode = golden.positions >= golden.prompt_length
    parts = [
        difference(got[golden.positions[chosen]], golden.logits[chosen])
        for chosen in (~is_decode, is_decode)
    ]
    equal, unequal = _greedy(got, golden, max(part.max_abs for part in parts))
    tolerance = _tolerance(options, golden) if tolerance is None else tolerance
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
        drift=golden.drift,
        passed=not reasons,
        reasons=tuple(reasons),
        operators=session.operators,
    )


def check_bundle(
    entry: Path, golden: Golden, options: ExportOptions, against: str, progress: Progress = ignore
) -> Parity:
    """Check a bundle's file as it runs here, and in the form that devices without our kernel run.

    Activations that the file rounds beside integer weights stay floats where the runtime can be
    told so: that rounding is a matter of quality, and would hide a graph that is wrong. A file
    that rounds to fixed ranges is checked as it ships, too, for its ranges could be wrong.

    Raises:
        OnekvError: the target's runtime is not installed, or refuses the file.
    """
    session = open_session(options.target, entry, options.context, exact=True)
    parity = check_parity(session, golden, options, against, progress)
    if calibrates_activations(options):
        session = open_session(options.target, entry, options.context)
        rounded = check_parity(session, golden, options, against, progress, _FIXED_RANGES)
        return _with_form(parity, "rounded", rounded, "rounded activations")
    if options.target is not Target.ONNX or not session.kernel:
        return parity
    session = open_session(options.target, entry, options.context, kernel=False, exact=True)
    stock = check_parity(session, golden, options, against, progress)
    return _with_form(parity, "stock", stock, stock.operators)


def _with_form(parity: Parity, field: str, form: Parity, name: str) -> Parity:
    """A verdict on two forms of a file, the second kept in a field of the first's record."""
    reasons = (*parity.reasons, *(f"with {name}: {reason}" for reason in form.reasons))
    passed = parity.passed and form.passed
    return parity.model_copy(update={field: form, "passed": passed, "reasons": reasons})


def _tolerance(options: ExportOptions, golden: Golden) -> float:
    tolerance = max(TOLERANCE[options.weights], TOLERANCE[options.cache])
    if options.ops is Ops.STOCK and options.cache in ROUNDED:
        tolerance = max(tolerance, _ROUNDED_QUERIES)
    return max(tolerance, _DRIFT_MARGIN * golden.drift)


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

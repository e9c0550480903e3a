"""Did the device compute the model? Its greedy tokens beside the bundle's parity record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onekv.bench.records import TokenCheck
from onekv.errors import BundleError
from onekv.export.bundle import Bundle
from onekv.export.golden import RECORD, Golden, load_golden
from onekv.quantize.numbers import ROUNDED

# Between this machine's kernels and a phone's, logits differ about as they do between the source
# model and the bundle: twice that, on each of the two tokens that change places.
_ROUNDING = 4
# Logits of rounded activations beside those of floats, relative to their spread.
_ROUNDED_ACTIVATIONS = 2e-2


@dataclass(frozen=True)
class Expected:
    """tokens: a prompt of `prompt` ids and the source model's greedy continuation. near_tie: per
    continued token, whether rounding alone may choose another.
    """

    tokens: tuple[int, ...]
    prompt: int
    near_tie: tuple[bool, ...]

    def judge(self, chosen: Sequence[int]) -> TokenCheck:
        """Compare what the device chose after each token, from the last of the prompt on."""
        want = self.tokens[self.prompt :]
        same = [a == b for a, b in zip(want, chosen)]
        ties = sum(not equal and near for equal, near in zip(same, self.near_tie))
        equal = sum(same)
        complete = len(chosen) == len(want)
        return TokenCheck(
            compared=len(same),
            equal=equal,
            near_ties=ties,
            passed=complete and equal + ties == len(want),
        )


def expected_tokens(bundle: Bundle) -> Expected:
    """What the bundle's own record says.

    Raises:
        BundleError: it has none, so that a wrong result could pass for a fast one.
    """
    path, parity = bundle.file(RECORD), bundle.manifest.parity
    if path is None or parity is None:
        raise BundleError(f"{bundle.path} has no parity record", "Export the model again.")
    golden = load_golden(path)
    error = max(parity.prefill.max_abs, parity.decode.max_abs)
    if bundle.manifest.options.weights in ROUNDED:
        # The record is of float activations; runtimes multiply integers by rounded ones.
        error = max(error, _ROUNDED_ACTIVATIONS * _spread(golden))
    margins = golden.margins[golden.prompt_length - 1 : -1]
    return Expected(
        tokens=tuple(golden.tokens.tolist()),
        prompt=golden.prompt_length,
        near_tie=tuple(np.less_equal(margins, _ROUNDING * error).tolist()),
    )


def _spread(golden: Golden) -> float:
    """How far a logit usually is from the mean of its row."""
    return float(golden.logits.std(axis=-1).mean())

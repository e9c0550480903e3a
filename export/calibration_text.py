"""The text that weights and activations are calibrated on, checked before any work (no torch)."""

from __future__ import annotations

from pathlib import Path

from onekv.errors import UsageError
from onekv.export.options import ExportOptions
from onekv.export.plan import integer_rules
from onekv.export.targets import target_rules
from onekv.export.tokenizer import text_tokens
from onekv.quantize.numbers import Number
from onekv.quantize.plan import WeightPlan

SHIPPED = "shipped"
"""Name of the text that comes with onekv: Milton's Areopagitica (1644), public domain."""

MIN_TOKENS = 4096
"""Fewer than these leave the statistics of common widths to chance."""

_SHIPPED_FILE = Path(__file__).parents[1] / "quantize" / "calibration.txt"


def calibrates_weights(weights: WeightPlan, options: ExportOptions) -> bool:
    """Whether a calibration text has a say in a bundle's integers."""
    rounded = any(tensor.number is Number.INT4 for tensor in weights.rounded)
    return rounded and not integer_rules(options).own_tool


def calibrates_activations(options: ExportOptions) -> bool:
    """Whether a bundle holds the ranges that activations take on a calibration text."""
    return options.profile in target_rules(options.target).calibrated


def calibration_tokens(
    text: Path, tokenizer: Path | None, weights: WeightPlan, options: ExportOptions
) -> tuple[int, ...]:
    """The tokens of a text, or of the shipped one when that is its name.

    Raises:
        UsageError: there is nothing to calibrate, no tokenizer, or too short a text.
    """
    if not calibrates_activations(options) and not calibrates_weights(weights, options):
        raise UsageError(
            "calibration is for int4 weights that onekv rounds",
            "Add --weights int4, or leave --calibrate out.",
        )
    if tokenizer is None:
        raise UsageError(
            "a calibration text needs a tokenizer", "Give its folder with --tokenizer DIR."
        )
    source = _SHIPPED_FILE if str(text) == SHIPPED else text
    tokens = text_tokens(tokenizer, source)
    if len(tokens) < MIN_TOKENS:
        raise UsageError(
            f"{text} has {len(tokens)} tokens, too few to calibrate with",
            f"Give a text of at least {MIN_TOKENS} tokens, of the kind that the model will read.",
        )
    return tuple(tokens)

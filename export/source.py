"""The source model as a session: what a bundle is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onekv.errors import CheckpointError
from onekv.export.bundle import file_hash
from onekv.export.checkpoints.base import Checkpoint
from onekv.export.golden import Golden, golden_run, ignore, replay
from onekv.export.options import ExportOptions
from onekv.export.plan import integer_rules, plan_weights_of
from onekv.export.resident import drop_pages
from onekv.export.targets import Progress, lowering, target_rules
from onekv.export.verify import difference
from onekv.quantize.numbers import ROUNDED
from onekv.quantize.plan import WeightPlan
from onekv.runtime.rows import RowFormat
from onekv.runtime.sessions import Session

if TYPE_CHECKING:
    import torch

    from onekv.export.model.session import DecoderSession
    from onekv.quantize.weights import QuantisedWeight

# Tokens that the disturbed source decodes one by one; each reads all weights.
_DISTURBED_SINGLES = 8

Quantised = Mapping[str, "QuantisedWeight"]


def quantise_checkpoint(
    checkpoint: Checkpoint,
    options: ExportOptions,
    progress: Progress,
    calibration: Sequence[int] = (),
) -> Quantised:
    """The weights that a bundle of these options stores as integers, by name.

    `calibration` is a text's tokens, none for rounding to nearest.

    Empty for float weights, and for a target whose own tool rounds them.
    """
    plan = plan_weights_of(checkpoint.spec, options)
    if not rounds_itself(plan, options):
        return {}
    if calibration:
        from onekv.export.calibrate import calibrate_weights, calibration_windows

        windows = calibration_windows(calibration, checkpoint.spec)
        return calibrate_weights(checkpoint.spec, checkpoint.load(), plan, windows, progress)
    from onekv.quantize.weights import quantise_weights

    return quantise_weights(checkpoint.load(), plan, progress)


def rounds_itself(weights: WeightPlan, options: ExportOptions) -> bool:
    """Whether onekv makes a bundle's integers: there are some, and no tool of the target does."""
    return bool(weights.rounded) and not integer_rules(options).own_tool


def source_session(checkpoint: Checkpoint, context: int) -> Session:
    """The source model in float32, its weights mapped when they are stored so."""
    return _float_session(checkpoint, context, checkpoint.load())


def parity_session(
    checkpoint: Checkpoint, options: ExportOptions, quantised: Quantised
) -> DecoderSession:
    """What a bundle of these options is to compute: the source model, rounded as it is stored.

    Rounding weights, activations or cache rows to integers changes the model, which perplexity
    measures; parity is about the file.
    """
    state = dict(checkpoint.load())
    if options.weights in ROUNDED and integer_rules(options).own_tool:
        stored_weight = lowering(options.target).stored_weight
        for name in state:
            state[name] = stored_weight(name, state[name], options)
            drop_pages(checkpoint.files)
    state |= {name: weight.dequantise() for name, weight in quantised.items()}
    form, parts = RowFormat.FP32, 1
    if options.cache in ROUNDED:
        form = RowFormat(options.cache)
        parts = target_rules(options.target).row_parts if checkpoint.spec.sharing.one_tensor else 1
    rounding = quantised if integer_rules(options).rounds_activations else ()
    return _float_session(checkpoint, options.context, state, form, parts, rounding)


def source_answer(
    checkpoint: Checkpoint,
    options: ExportOptions,
    quantised: Quantised,
    prompt: Sequence[int],
    progress: Progress,
) -> Golden:
    """What a bundle of these options is to answer to a prompt, and how firm that answer is.

    Where rows or activations are rounded, a number near the middle between two steps goes either
    way with the order of a sum, and layers multiply that.

    Raises:
        CheckpointError: the answer is not finite, so that nothing can be compared with it.
    """
    session = parity_session(checkpoint, options, quantised)
    rounds = bool(quantised) and integer_rules(options).rounds_activations
    answer = firm_answer if rounds or options.cache in ROUNDED else golden_run
    found = answer(session, prompt, progress)
    if not np.isfinite(found.logits).all():
        raise _not_finite(checkpoint)
    return found


def _not_finite(checkpoint: Checkpoint) -> CheckpointError:
    weights = checkpoint.load().items()
    broken = [name for name, tensor in weights if not tensor.isfinite().all()]
    what = broken[0] if broken else "the logits"
    return CheckpointError(
        f"{checkpoint.source}: {what} {'has' if broken else 'have'} values that are not finite",
        "Check the checkpoint for overflows.",
    )


def firm_answer(
    source: DecoderSession, prompt: Sequence[int], progress: Progress = ignore
) -> Golden:
    """`golden_run`, and then again with disturbed sums to learn the drift."""
    golden = golden_run(source, prompt, progress)
    with source.disturbed():
        again = replay(source, golden, progress, _DISTURBED_SINGLES)
    return replace(golden, drift=difference(again, golden.logits).relative_l2)


def parity_name(options: ExportOptions) -> str:
    """What a parity record calls the model that it compares with."""
    rounded = [
        f"{what} rounded to {number}"
        for what, number in (("weights", options.weights), ("cache", options.cache))
        if number in ROUNDED
    ]
    return f"source model with {' and '.join(rounded)}" if rounded else "source model"


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """SHA-256 over the hashes of the files that were read."""
    total = hashlib.sha256()
    for path in sorted(checkpoint.files):
        total.update(file_hash(path).encode())
    return total.hexdigest()


def _float_session(
    checkpoint: Checkpoint,
    context: int,
    state: Mapping[str, torch.Tensor],
    form: RowFormat = RowFormat.FP32,
    parts: int = 1,
    rounding: Collection[str] = (),
) -> DecoderSession:
    from onekv.export.model.decoder import build_decoder
    from onekv.export.model.session import DecoderSession

    wide = {name: tensor.float() for name, tensor in state.items()}
    decoder = build_decoder(checkpoint.spec, wide, context)
    if rounding:
        from onekv.quantize.activations import round_activations

        round_activations(decoder, rounding)
    return DecoderSession(decoder, context, form, parts)

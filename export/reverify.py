"""Verify a bundle again, later and elsewhere, and write the answer into it."""

from __future__ import annotations

from pathlib import Path

from onekv.errors import UsageError
from onekv.export.bundle import Bundle, open_bundle, write_manifest
from onekv.export.calibration_text import calibrates_weights
from onekv.export.checkpoints import open_checkpoint
from onekv.export.checkpoints.base import Checkpoint
from onekv.export.golden import RECORD, Golden, load_golden
from onekv.export.manifest import Parity, Perplexity
from onekv.export.plan import plan_weights_of
from onekv.export.source import (
    checkpoint_hash,
    parity_name,
    quantise_checkpoint,
    source_answer,
    source_session,
)
from onekv.export.stages import Reporter, Silent
from onekv.export.tokenizer import text_tokens
from onekv.export.verify import check_bundle
from onekv.quantize.quality import perplexity
from onekv.runtime.sessions import open_session


def verify_bundle(
    folder: Path,
    model: Path | None = None,
    text: Path | None = None,
    reporter: Reporter | None = None,
) -> Parity:
    """Compare a bundle with its source model, and record the result in its manifest.

    With `model`, the source runs again; without, the bundle is compared with the logits that
    were recorded when it was made. `text` is a file whose perplexity is measured too.

    Raises:
        BundleError: the bundle was changed or is incomplete.
        UsageError: `model` is not what the bundle was made from.
    """
    reporter = reporter or Silent()
    with reporter.stage("check files"):
        bundle = open_bundle(folder)
    checkpoint = None if model is None else _source(bundle, model)
    golden, against = _golden(bundle, checkpoint, reporter)
    with reporter.stage("verify") as progress:
        parity = check_bundle(bundle.entry, golden, bundle.manifest.options, against, progress)
    if text is not None:
        found = _perplexity(bundle, checkpoint, text, reporter)
        parity = parity.model_copy(update={"perplexity": found})
    write_manifest(folder, bundle.manifest.model_copy(update={"parity": parity}))
    return parity


def _context(bundle: Bundle) -> int:
    return bundle.manifest.options.context


def _source(bundle: Bundle, model: Path) -> Checkpoint:
    checkpoint = open_checkpoint(model)
    if checkpoint_hash(checkpoint) != bundle.manifest.source.sha256:
        raise UsageError(
            f"{model} is not the model that {bundle.path} was made from "
            f"({bundle.manifest.source.name}): their hashes differ",
            "Give the original model, or leave --source out to use the recorded logits.",
        )
    return checkpoint


def _golden(
    bundle: Bundle, checkpoint: Checkpoint | None, reporter: Reporter
) -> tuple[Golden, str]:
    recorded, options = load_golden(bundle.path / RECORD), bundle.manifest.options
    if checkpoint is None or _calibrated_weights(bundle):
        return recorded, "logits recorded at export"
    prompt = recorded.tokens[: recorded.prompt_length].tolist()
    with reporter.stage("source model") as progress:
        quantised = quantise_checkpoint(checkpoint, options, progress)
        golden = source_answer(checkpoint, options, quantised, prompt, progress)
        return golden, parity_name(options)


def _calibrated_weights(bundle: Bundle) -> bool:
    """Whether weights cannot be rounded again here: the text for it is not in the bundle."""
    options = bundle.manifest.options
    weights = plan_weights_of(bundle.manifest.model, options)
    return options.calibration is not None and calibrates_weights(weights, options)


def _perplexity(
    bundle: Bundle,
    checkpoint: Checkpoint | None,
    text: Path,
    reporter: Reporter,
) -> Perplexity:
    tokens = text_tokens(bundle.path, text)
    session = open_session(bundle.manifest.options.target, bundle.entry, _context(bundle))
    with reporter.stage("perplexity") as progress:
        own = perplexity(session, tokens, progress=progress)
    reference = None
    if checkpoint is not None:
        from onekv.runtime.adapters.torch_kernel import kernel_attention

        # A figure of quality and not the proof of parity, which the definition alone gives.
        with reporter.stage("perplexity, source") as progress, kernel_attention():
            source = source_session(checkpoint, _context(bundle))
            reference = perplexity(source, tokens, progress=progress)
    return Perplexity(text=text.name, tokens=len(tokens), source=reference, bundle=own)

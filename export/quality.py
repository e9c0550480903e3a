"""Quality of bundles against their source model, through each bundle's own runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onekv.errors import UsageError
from onekv.export.bundle import Bundle, is_bundle, open_bundle
from onekv.export.checkpoints import open_checkpoint
from onekv.export.checkpoints.base import Checkpoint
from onekv.export.options import Asked, ExportOptions, Target
from onekv.export.pipeline import plan_export, run_export
from onekv.export.plan import plan_memory, plan_weights_of
from onekv.export.resolve import resolve_options
from onekv.export.source import checkpoint_hash, source_session
from onekv.export.stages import Reporter, Silent
from onekv.export.tokenizer import text_tokens
from onekv.quantize.compare import Quality, compare
from onekv.quantize.numbers import Number
from onekv.runtime.sessions import Session, open_session

FORMATS = (
    "fp32/fp16",
    "fp32/int8",
    "fp32/int4",
    "int8/fp32",
    "int4/fp32",
    "int8/int8",
    "int4/int8",
)
"""Weights and caches that are tried when a model is given instead of bundles."""


@dataclass(frozen=True)
class QualityRow:
    """One bundle at one window, with what it takes: bits per weight, cache bytes per token."""

    name: str
    variant: str
    target: str
    weights: Number
    cache: Number
    bits_per_weight: float
    cache_bytes_per_token: int
    quality: Quality


@dataclass(frozen=True)
class QualityReport:
    """`source` is the model that KL and top-1 refer to, None if none was given."""

    text: str
    source: str | None
    rows: tuple[QualityRow, ...]


def parse_formats(text: str) -> Asked:
    """`WEIGHTS/CACHE`, such as `int4/int8`.

    Raises:
        UsageError: the text has another form.
    """
    known = [str(number) for number in Number]
    weights, slash, cache = text.partition("/")
    if not slash or weights not in known or cache not in known:
        raise UsageError(
            f"formats {text!r} are not WEIGHTS/CACHE",
            f"For example int4/int8; each is one of {', '.join(known)}.",
        )
    return Asked(weights=Number(weights), cache=Number(cache))


def measure_quality(
    paths: Sequence[Path],
    text: Path,
    windows: Sequence[int],
    limit: int | None = None,
    target: Target = Target.ONNX,
    formats: Sequence[str] = FORMATS,
    reporter: Reporter | None = None,
) -> QualityReport:
    """Measure bundles over a text, `limit` tokens of it at most.

    Among `paths` may be the model that the bundles were made from; alone, it is exported in all
    `formats` for `target`, into a folder that is removed afterwards.

    Raises:
        UsageError: more than one model, bundles of several models, or a text too short.
    """
    reporter = reporter or Silent()
    bundles = [open_bundle(path) for path in paths if is_bundle(path)]
    models = [path for path in paths if not is_bundle(path)]
    if len(models) > 1:
        raise UsageError(
            f"{models[0]} and {models[1]} are both models", "Give bundles and one model."
        )
    checkpoint = open_checkpoint(models[0]) if models else None
    if checkpoint is None or bundles:
        _check_same_model(bundles, checkpoint)
        return _measure(bundles, checkpoint, text, windows, limit, reporter)
    with tempfile.TemporaryDirectory() as scratch:
        made = _export_all(checkpoint, target, formats, max(windows), Path(scratch), reporter)
        return _measure(made, checkpoint, text, windows, limit, reporter)


def _check_same_model(bundles: Sequence[Bundle], checkpoint: Checkpoint | None) -> None:
    sources = {bundle.manifest.source.sha256: bundle.path for bundle in bundles}
    if checkpoint is not None:
        sources.setdefault(checkpoint_hash(checkpoint), Path(checkpoint.source))
    if len(sources) > 1:
        first, second, *_ = sources.values()
        raise UsageError(
            f"{first} and {second} are not of one model: their sources' hashes differ",
            "Measure each model's bundles by themselves.",
        )


def _export_all(
    checkpoint: Checkpoint,
    target: Target,
    formats: Sequence[str],
    context: int,
    folder: Path,
    reporter: Reporter,
) -> list[Bundle]:
    bundles = []
    for text in formats:
        asked = replace(parse_formats(text), context=context)
        options = resolve_options(checkpoint.spec, target, asked)
        plan = plan_export(checkpoint, options, None, need_tokenizer=True)
        bundles.append(run_export(plan, folder / text.replace("/", "-"), reporter=reporter))
    return bundles


def _measure(
    bundles: Sequence[Bundle],
    checkpoint: Checkpoint | None,
    text: Path,
    windows: Sequence[int],
    limit: int | None,
    reporter: Reporter,
) -> QualityReport:
    tokens = text_tokens(bundles[0].path, text, limit)
    sessions: list[Session] = [
        open_session(bundle.manifest.options.target, bundle.entry, bundle.manifest.options.context)
        for bundle in bundles
    ]
    source = None if checkpoint is None else source_session(checkpoint, max(windows))
    rows = []
    for window in windows:
        with reporter.stage(f"windows of {window}") as progress:
            found = compare(sessions, source, tokens, window, progress)
        rows += [_row(bundle, quality) for bundle, quality in zip(bundles, found)]
    name = None if checkpoint is None else checkpoint.source
    return QualityReport(text.name, name, tuple(rows))


def _row(bundle: Bundle, quality: Quality) -> QualityRow:
    manifest = bundle.manifest
    options: ExportOptions = manifest.options
    return QualityRow(
        name=bundle.path.name,
        variant=manifest.variant,
        target=options.target,
        weights=options.weights,
        cache=options.cache,
        bits_per_weight=plan_weights_of(manifest.model, options).bits,
        cache_bytes_per_token=plan_memory(manifest.model, options).cache_per_token,
        quality=quality,
    )

"""Load, trace, lower, verify, bundle: one export from a checkpoint to a folder."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onekv
from onekv.errors import CheckpointError, OnekvError, ParityError
from onekv.export.bundle import Bundle, describe_files, write_manifest, writing
from onekv.export.calibration_text import (
    SHIPPED,
    calibrates_activations,
    calibration_tokens,
)
from onekv.export.checkpoints.base import Checkpoint
from onekv.export.golden import Golden, save_golden
from onekv.export.manifest import SCHEMA_VERSION, Manifest, Memory, Parity, Source
from onekv.export.options import ExportOptions
from onekv.export.plan import plan_memory, plan_weights_of
from onekv.export.resident import drop_pages
from onekv.export.source import (
    Quantised,
    checkpoint_hash,
    parity_name,
    quantise_checkpoint,
    rounds_itself,
    source_answer,
)
from onekv.export.stages import Reporter, Silent
from onekv.export.targets import LowerRequest, check_target, lower, target_rules
from onekv.export.tokenizer import copy_tokenizer, load_tokenizer, parity_prompt
from onekv.export.verify import check_bundle
from onekv.quantize.plan import WeightPlan

_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "executorch", "coremltools")


@dataclass(frozen=True)
class ExportPlan:
    """Everything that is settled before an export runs."""

    checkpoint: Checkpoint
    options: ExportOptions
    tokenizer_dir: Path | None
    memory: Memory
    weights: WeightPlan
    calibration: tuple[int, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the target's devices, in sentences."""
        spec, rules = self.checkpoint.spec, target_rules(self.options.target)
        return rules.notes(spec, self.options, self.weights)

    def summary(self) -> dict[str, object]:
        """The plan as plain data."""
        checkpoint = self.checkpoint
        return {
            "source": checkpoint.source,
            "format": checkpoint.format,
            "variant": checkpoint.spec.variant,
            "sharing_evidence": checkpoint.sharing_evidence,
            "model": checkpoint.spec,
            "options": self.options,
            "tokenizer": self.tokenizer_dir is not None,
            "memory": self.memory,
            "notes": self.notes,
            "weights": [
                {**asdict(tensor), "bits": tensor.bits, "bytes": tensor.bytes}
                for tensor in self.weights.tensors
            ],
        }


def plan_export(
    checkpoint: Checkpoint,
    options: ExportOptions,
    tokenizer: Path | None,
    need_tokenizer: bool,
    calibration: Path | None = None,
) -> ExportPlan:
    """Settle an export; `calibration` is a text, or the name of the one that onekv ships.

    A profile that calibrates activations takes the latter where none is given.

    Raises:
        CheckpointError: the model has no tokenizer and the bundle needs one.
        UsageError: the target's devices cannot hold what was asked for, or a calibration that
            cannot be: too short a text, or no int4 weights.
    """
    own = tokenizer or checkpoint.tokenizer_dir
    folder = own if need_tokenizer else None
    if need_tokenizer and own is None:
        raise CheckpointError(
            f"{checkpoint.source} comes without a tokenizer",
            "Give its folder with --tokenizer DIR, or --no-tokenizer for a bundle that takes "
            "token ids only.",
        )
    check_target(checkpoint.spec, options)
    spec = checkpoint.spec
    weights = plan_weights_of(spec, options)
    tokens: tuple[int, ...] = ()
    if calibration is None and calibrates_activations(options):
        calibration = Path(SHIPPED)
    if calibration is not None:
        tokens = calibration_tokens(calibration, own, weights, options)
        options = replace(options, calibration=calibration.name)
    return ExportPlan(checkpoint, options, folder, plan_memory(spec, options), weights, tokens)


def run_export(
    plan: ExportPlan, folder: Path, force: bool = False, reporter: Reporter | None = None
) -> Bundle:
    """Write the bundle that `plan` describes, checked against the source model.

    Raises:
        OnekvError: the disk is too small, or a stage failed.
        ParityError: the result does not compute the source model; nothing is written.
    """
    reporter = reporter or Silent()
    with writing(folder, force) as partial:
        _check_space(partial, plan.memory)
        if plan.tokenizer_dir is not None:
            copy_tokenizer(plan.tokenizer_dir, partial)
        quantised = _quantise(plan, reporter)
        drop_pages(plan.checkpoint.files)
        golden = _source_run(plan, quantised, reporter)
        drop_pages(plan.checkpoint.files)
        entry = _lower(plan, quantised, partial, reporter)
        del quantised
        drop_pages(plan.checkpoint.files)
        parity = _verify(plan, partial / entry, golden, reporter)
        save_golden(golden, partial)
        with reporter.stage("bundle"):
            manifest = _describe(plan, partial, entry, parity)
            write_manifest(partial, manifest)
    return Bundle(folder, manifest)


def _check_space(folder: Path, memory: Memory) -> None:
    free = shutil.disk_usage(folder).free
    if free < memory.weights:
        raise OnekvError(
            f"the weights take {memory.weights / 2**20:.0f} MiB, "
            f"the disk has {free / 2**20:.0f} MiB left",
            "Free some space, or choose another folder with -o.",
        )


def _quantise(plan: ExportPlan, reporter: Reporter) -> Quantised:
    if not rounds_itself(plan.weights, plan.options):
        return {}
    with reporter.stage(f"quantise to {plan.options.weights}") as progress:
        return quantise_checkpoint(plan.checkpoint, plan.options, progress, plan.calibration)


def _source_run(plan: ExportPlan, quantised: Quantised, reporter: Reporter) -> Golden:
    spec, context = plan.checkpoint.spec, plan.options.context
    tokenizer = None if plan.tokenizer_dir is None else load_tokenizer(plan.tokenizer_dir)
    with reporter.stage("source model") as progress:
        prompt = parity_prompt(tokenizer, spec.vocab_size, context)
        return source_answer(plan.checkpoint, plan.options, quantised, prompt, progress)


def _lower(plan: ExportPlan, quantised: Quantised, folder: Path, reporter: Reporter) -> str:
    checkpoint, options = plan.checkpoint, plan.options
    request = LowerRequest(
        checkpoint.spec,
        options,
        checkpoint.load,
        checkpoint.eos_token_ids,
        checkpoint.bos_token_id,
        quantised,
        lambda: drop_pages(checkpoint.files),
        plan.calibration,
    )
    with reporter.stage(f"lower to {options.target}") as progress:
        return lower(request, folder, progress)


def _verify(plan: ExportPlan, entry: Path, golden: Golden, reporter: Reporter) -> Parity | None:
    if plan.options.profile in target_rules(plan.options.target).not_run:
        return None
    with reporter.stage("verify") as progress:
        parity = check_bundle(entry, golden, plan.options, parity_name(plan.options), progress)
    if not parity.passed:
        raise ParityError(
            "the exported file does not compute the source model: " + "; ".join(parity.reasons),
            "Nothing was written. Please report this with the model's configuration.",
        )
    return parity


def _describe(plan: ExportPlan, folder: Path, entry: str, parity: Parity | None) -> Manifest:
    checkpoint = plan.checkpoint
    return Manifest(
        schema_version=SCHEMA_VERSION,
        onekv=onekv.__version__,
        model=checkpoint.spec,
        options=plan.options,
        variant=checkpoint.spec.variant,
        source=Source(
            name=checkpoint.source,
            format=checkpoint.format,
            sha256=checkpoint_hash(checkpoint),
            sharing_evidence=checkpoint.sharing_evidence,
        ),
        entry=entry,
        files=describe_files(folder),
        eos_token_ids=checkpoint.eos_token_ids,
        bos_token_id=checkpoint.bos_token_id,
        tools=_tool_versions(),
        memory=plan.memory,
        parity=parity,
    )


def _tool_versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in _TOOLS if name in installed}

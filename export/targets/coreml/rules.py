"""What Core ML packages can store, and how export options become the target's own."""

from __future__ import annotations

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Profile, TargetRules
from onekv.export.targets.coreml.options import (
    DEPLOYMENT_TARGETS,
    FALLBACK_BYTES,
    MULTIPLE,
    CoreMLOptions,
    check_options,
)
from onekv.export.targets.coreml.versions import check_versions
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules, WeightPlan


def stored_bytes(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> int:
    """What a package's weight file takes, rotary tables included.

    On the Neural Engine the tied head is a convolution of its own beside the embeddings.
    """
    total = weights.bytes
    if options.profile is Profile.NPU and spec.tied_head:
        total += next(t.bytes for t in weights.tensors if t.name == "embed_tokens.weight")
    if spec.rope is not None:
        # Cosines and sines of queries in fp32 and of keys in fp16.
        total += options.context * spec.head_dim * (4 + 2)
    return total


def _notes(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> tuple[str, ...]:
    notes = []
    size = stored_bytes(spec, options, weights)
    if size > FALLBACK_BYTES:
        notes.append(
            f"The package takes {size / 1e9:.2f} GB. Above about 1 GB devices run it on the GPU "
            "or CPU without saying so: choose smaller weights, or measure before you ship."
        )
    names = coreml_options(options).logits(spec)
    if len(names) > 1:
        notes.append(
            f"A vocabulary of {spec.vocab_size} is wider than the Neural Engine's tensors: the "
            f"logits come in {len(names)} outputs, to be joined in order."
        )
    return tuple(notes)


RULES = TargetRules(
    weights=(Number.FP16, Number.INT8, Number.INT4),
    caches=(Number.FP16,),
    profiles=(Profile.GPU, Profile.NPU),
    context_multiple=MULTIPLE,
    deployment_targets=DEPLOYMENT_TARGETS,
    notes=_notes,
    integers=IntegerRules(groups={Number.INT4: (16, 32, 64, 128, 256)}, kept=Number.FP16),
    # A palette of 16 values for 16 rows takes what one scale per row does.
    integers_on={Profile.NPU: IntegerRules(int4_group=None, kept=Number.FP16, own_tool=True)},
)


def coreml_options(options: ExportOptions) -> CoreMLOptions:
    """The target's options."""
    return CoreMLOptions(
        context=options.context,
        profile=options.profile,
        weights=options.weights,
        deployment_target=options.deployment_target or DEPLOYMENT_TARGETS[0],
        # The end of a context that no full call fits into is decoded token by token.
        prefill=min(64, max(1, options.context // 4)),
    )


def check(spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse what a device cannot hold, and versions of tools that break the route."""
    check_versions()
    if options.profile is Profile.NPU and options.group is not None:
        raise UsageError(
            f"weights in groups of {options.group} columns are a format of the GPU: the Neural "
            "Engine would unpack them to fp16, which takes four times the memory of int4",
            "Leave --group out (int4 of the npu profile is 4-bit palettes), or use --profile gpu.",
        )
    check_options(spec, coreml_options(options))

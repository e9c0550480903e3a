"""What Core ML packages can store, and how export options become the target's own."""

from __future__ import annotations

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Profile, TargetRules
from onekv.export.targets.coreml.options import MULTIPLE, CoreMLOptions, check_options
from onekv.export.targets.coreml.versions import check_versions
from onekv.quantize.numbers import Number
from onekv.quantize.plan import IntegerRules

RULES = TargetRules(
    weights=(Number.FP16, Number.INT8, Number.INT4),
    caches=(Number.FP16,),
    profiles=(Profile.GPU, Profile.NPU),
    context_multiple=MULTIPLE,
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

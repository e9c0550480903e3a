"""What ExecuTorch programs can store and run."""

from __future__ import annotations

from onekv.errors import UsageError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Ops, Profile, TargetRules
from onekv.export.targets.executorch.versions import check_versions
from onekv.quantize.numbers import ROUNDED, Number
from onekv.quantize.plan import IntegerRules, WeightPlan


def _notes(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> tuple[str, ...]:
    notes = []
    if options.profile in _DELEGATED:
        notes.append(
            f"No runtime for this system executes the {options.profile} profile: the file is "
            "written and not run here."
        )
    copies = turned_copies(spec, options)
    if copies:
        row = 4 * spec.kv_heads * spec.head_dim * options.context
        notes.append(
            f"Stock operators turn all {options.context} keys in every step: {copies * row} bytes "
            "of activations, and time that grows with the context."
        )
    return tuple(notes)


def turned_copies(spec: ModelSpec, options: ExportOptions) -> int:
    """Copies of all rows that stock operators make: turned keys, and int8 rows widened before."""
    if options.ops is not Ops.STOCK or not spec.sharing.one_tensor or spec.rope is None:
        return 0
    return 2 if options.cache in ROUNDED else 1


_DELEGATED = (Profile.GPU, Profile.APPLE)

RULES = TargetRules(
    weights=(Number.FP32, Number.INT8, Number.INT4),
    caches=(Number.FP32, Number.FP16, Number.INT8, Number.INT4),
    profiles=(Profile.CPU, Profile.GPU, Profile.APPLE),
    ops=(Ops.ONEKV, Ops.STOCK),
    ops_on={Profile.GPU: (Ops.STOCK, Ops.ONEKV), Profile.APPLE: (Ops.STOCK,)},
    not_run=_DELEGATED,
    notes=_notes,
    integers=IntegerRules(rounds_activations=True),
)

_PREFILL_MOST = 128
_LOGITS_MOST = 16 << 20


def prefill_length(spec: ModelSpec, context: int) -> int:
    """The most tokens of one call.

    Activations are planned for it, and logits [S, vocab] are the largest of them.
    """
    fitting = _LOGITS_MOST // (4 * spec.vocab_size)
    power = 1 << max(0, fitting.bit_length() - 1)
    return min(context, max(16, min(_PREFILL_MOST, power)))


def check(spec: ModelSpec, options: ExportOptions) -> None:
    """Refuse what no operator of the form computes, and versions that break the route."""
    check_versions()
    if options.profile is not Profile.CPU:
        _check_delegate(options)
    if options.ops is Ops.STOCK:
        if options.profile is Profile.CPU:
            _check_stock(spec, options)
    elif spec.head_dim % 8 or spec.head_dim > 512:
        raise UsageError(
            f"head_dim {spec.head_dim}: the kernel takes multiples of 8 up to 512",
            "Export this model to ONNX.",
        )


_STOCK_CACHES = (Number.FP32, Number.INT8)


def _check_stock(spec: ModelSpec, options: ExportOptions) -> None:
    if options.cache not in _STOCK_CACHES:
        raise UsageError(
            f"cache {options.cache}: ExecuTorch's own operators keep rows as "
            f"{', '.join(_STOCK_CACHES)}",
            "Choose one of these, or --ops onekv.",
        )
    if spec.window:
        raise UsageError(
            f"a sliding window of {spec.window}: ExecuTorch's own attention has none",
            "Export with --ops onekv.",
        )


def _check_delegate(options: ExportOptions) -> None:
    """A GPU's or Core ML's delegate takes the whole model, in float32 as far as we write it."""
    for what, number in (("weights", options.weights), ("cache", options.cache)):
        if number is not Number.FP32:
            raise UsageError(
                f"{what} {number}: the {options.profile} profile of ExecuTorch stores fp32, which "
                "its delegate narrows to what the device computes in",
                f"Leave --{what} out, or choose --profile cpu.",
            )

"""What Core ML holds for a package. Not measured: nothing of Apple's runs where this was made."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions
from onekv.export.targets.coreml.rules import coreml_options, stored_bytes
from onekv.quantize.plan import WeightPlan

_HALF = 2
# An app with the framework loaded and no model, as llama.rn's memory profiles show it before one.
_RUNTIME = 90_000_000


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Weights are mapped; scores are kept as fp16 matrices, once masked and once as softmax."""
    prefill = coreml_options(options).prefill
    stored = stored_bytes(spec, options, weights)
    step = Step(prefill, options.context, bytes=_HALF, scores=1, rows=1)
    return Footprint(stored, stored, prefill, activation_bytes(spec, step), _RUNTIME)

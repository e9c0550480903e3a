"""What Core ML holds for a package. Not measured: nothing of Apple's runs where this was made."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Profile
from onekv.export.targets.coreml.rules import coreml_options
from onekv.quantize.plan import WeightPlan

_HALF = 2
# An app with the framework loaded and no model, as llama.rn's memory profiles show it before one.
_RUNTIME = 90_000_000


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Weights are mapped; scores are kept as fp16 matrices, once masked and once as softmax.

    On the Neural Engine the tied head is a convolution of its own beside the embeddings.
    """
    prefill = coreml_options(options).prefill
    stored = weights.bytes
    if options.profile is Profile.NPU and spec.tied_head:
        stored += next(t.bytes for t in weights.tensors if t.name == "embed_tokens.weight")
    if spec.rope is not None:
        # Cosines and sines of queries in fp32 and of keys in fp16.
        stored += options.context * spec.head_dim * (4 + _HALF)
    step = Step(prefill, options.context, bytes=_HALF, scores=1, rows=1)
    return Footprint(stored, stored, prefill, activation_bytes(spec, step), _RUNTIME)

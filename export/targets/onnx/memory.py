"""What ONNX Runtime holds for a bundle (measured on Linux with prepacking off, as sessions do)."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Ops
from onekv.quantize.plan import WeightPlan

PREFILL = 256
"""Tokens of one call, as `runtime.generate` and the runner make it."""

# The runtime as it is loaded, and a layer's nodes in its structures: of the kernel's one node with
# one tensor and with two, and of the body of stock operators.
_BASE = 9_050_000
_KERNEL, _STOCK = (294_000, 372_000), (493_000, 522_000)


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Weights are mapped; a tied head's logits are reshaped, which copies them.

    The body of stock operators keeps scores, their masked form and their softmax, the filled
    rows and the rotated ones.
    """
    prefill = min(PREFILL, options.context)
    stock = options.ops is Ops.STOCK
    step = Step(
        prefill,
        options.context,
        scores=3 if stock else 0,
        rows=(2 if spec.rope else 1) if stock else 0,
        logits=2 if spec.tied_head else 1,
        # The activation function and the products around it each give a tensor.
        hidden=4 if spec.gated_mlp else 3,
    )
    tables = 0 if spec.rope is None else options.context * spec.head_dim * 4
    return Footprint(
        stored=weights.bytes + tables,
        mapped=weights.bytes + tables,
        prefill=prefill,
        activations=activation_bytes(spec, step),
        runtime=_BASE
        + (_STOCK if stock else _KERNEL)[spec.sharing.cached_tensors - 1] * spec.layers,
        activations_kept=False,
    )

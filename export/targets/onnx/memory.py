"""What ONNX Runtime holds for a bundle, measured on Linux: sessions prepack integers alone."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Ops
from onekv.export.targets.onnx.rules import block_size
from onekv.quantize.plan import BITS, WeightPlan

PREFILL = 256
"""Tokens of one call, as `runtime.generate` and the runner make it."""

# The runtime as it is loaded, what its first call adds, a layer's nodes in its structures without
# and with RoPE, and what the body of stock operators adds to a layer.
_BASE, _FIRST_CALL = 9_600_000, 2_100_000
_LAYER, _ROPE_LAYER, _STOCK = 150_000, 245_000, 200_000
# Of every block: its scale unfolded to fp32, the same packed with the integers, and their sum.
_SCALE, _PACKED_BLOCK = 4, 12
_EMBEDDING = "embed_tokens.weight"


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Weights are mapped; of integer matrices the runtime makes packed copies, as it must.

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
        # The activation function and the products around it each give a tensor.
        hidden=4 if spec.gated_mlp else 3,
    )
    layer = (_LAYER if spec.rope is None else _ROPE_LAYER) + (_STOCK if stock else 0)
    tables = 0 if spec.rope is None else options.context * spec.head_dim * 4
    return Footprint(
        stored=weights.bytes + tables + _unfolded(spec, weights),
        mapped=weights.bytes + tables,
        prefill=prefill,
        activations=activation_bytes(spec, step),
        runtime=_BASE + _FIRST_CALL + layer * spec.layers,
        activations_kept=False,
        first_call=_FIRST_CALL,
    )


def _unfolded(spec: ModelSpec, weights: WeightPlan) -> int:
    """Bytes of what the runtime makes of integers: packed copies, and scales to look up with."""
    total = 0
    for tensor in weights.rounded:
        blocks = tensor.parameters // block_size(tensor.shape[1], tensor.group)
        if tensor.name == _EMBEDDING:
            total += blocks * _SCALE
        if tensor.name != _EMBEDDING or spec.tied_head:
            total += tensor.parameters * BITS[tensor.number] // 8 + blocks * _PACKED_BLOCK
    return total

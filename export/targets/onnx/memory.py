"""What ONNX Runtime holds for a bundle, measured on Linux: sessions prepack integers alone."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions, Ops, Profile
from onekv.export.targets.onnx.rules import block_size, prefill_length
from onekv.quantize.plan import BITS, WeightPlan

PREFILL = 256
"""Tokens of one call, as `runtime.generate` and the runner make it."""

# The runtime as it is loaded, what its first call adds, and what the body of stock operators and
# matrices of integers add to a layer.
_BASE, _FIRST_CALL, _STOCK, _INTEGERS = 9_280_000, 200_000, 200_000, 60_000
# A layer's nodes in its structures, by whether there is RoPE and whether the cache is one tensor.
_LAYER = {
    (False, True): 164_000,
    (False, False): 187_000,
    (True, True): 250_000,
    (True, False): 260_000,
}
# Of every block: its scale unfolded to fp32, the same packed with the integers, and their sum.
_SCALE, _PACKED_BLOCK = 4, 12
_EMBEDDING = "embed_tokens.weight"


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Weights are mapped; of integer matrices the runtime makes packed copies, as it must.

    The body of stock operators keeps scores, their masked form and their softmax, the filled
    rows and the rotated ones.
    """
    if options.profile is Profile.NPU:
        return _npu_footprint(spec, options, weights)
    prefill = min(PREFILL, options.context)
    stock = options.ops is Ops.STOCK
    layer = _LAYER[spec.rope is not None, spec.sharing.one_tensor] + (_STOCK if stock else 0)
    layer += _INTEGERS if weights.rounded else 0
    tables = 0 if spec.rope is None else options.context * spec.head_dim * 4
    return Footprint(
        stored=weights.bytes + tables + _unfolded(spec, weights),
        mapped=weights.bytes + tables,
        prefill=prefill,
        activations=_activations(spec, options, weights, prefill),
        runtime=_BASE + _FIRST_CALL + layer * spec.layers,
        activations_kept=False,
        first_call=_FIRST_CALL,
    )


def _npu_footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """Not measured: what an NPU's compiler makes of the graphs is known to it alone.

    Weights once, although a compiler may lay out a tied head a second time; activations of 16
    bits, scores before and after their softmax, keys turned and values beside the cache.
    """
    prefill = prefill_length(options.context)
    tables = 0 if spec.rope is None else options.context * spec.head_dim * 4
    stored = weights.bytes + tables
    step = Step(prefill, options.context, bytes=2, scores=1, rows=1)
    runtime = _BASE + _FIRST_CALL + _LAYER[spec.rope is not None, True] * spec.layers
    return Footprint(stored, stored, prefill, activation_bytes(spec, step), runtime)


def _activations(spec: ModelSpec, options: ExportOptions, weights: WeightPlan, tokens: int) -> int:
    """The most that one call holds: in a layer, or at the head.

    A float matrix that is also the embedding gives the logits as [tokens, vocabulary], which
    are copied into their last shape. Every node has a tensor of its own: the norms, the halves
    of rows, the activation function and the products around it.
    """
    stream, hidden = (tokens * width * 4 for width in (spec.hidden_size, spec.ffn_size))
    row = tokens * spec.kv_heads * spec.head_dim * 4
    logits = tokens * spec.vocab_size * 4
    copied = spec.tied_head and _EMBEDDING not in {tensor.name for tensor in weights.rounded}
    head = 2 * logits if copied else logits + stream
    layer = 6 * stream + 3 * hidden + 4 * spec.sharing.cached_tensors * row
    if options.ops is not Ops.STOCK:
        return max(head, layer)
    step = Step(tokens, options.context, scores=3, rows=2 if spec.rope else 1)
    return max(head, layer, activation_bytes(spec, step))


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

"""What ExecuTorch holds for a program, its linear layers delegated to XNNPACK."""

from __future__ import annotations

from onekv.export.footprint import Footprint
from onekv.export.model.spec import ModelSpec, Norm
from onekv.export.options import ExportOptions, Ops
from onekv.export.targets.executorch.rules import prefill_length, turned_copies
from onekv.quantize.numbers import Number
from onekv.quantize.plan import TensorPlan, WeightPlan

_EMBEDDING, _POSITIONS = "embed_tokens.weight", "embed_positions.weight"
_FLOAT = 4
# Rows that XNNPACK packs together in float32, with AVX-512; NEON has 8.
_PACKED_ROWS = 16
# Beside its integers a packed row has its sum and its bias; one of int8 has its scale, too.
_INT8_ROW, _INT4_ROW, _GROUP_SCALE = 12, 8, 2
# Measured: the libraries and the thread pool, and a layer's nodes in its delegate.
_BASE, _PER_LAYER = 440_000, 87_000


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """XNNPACK packs the matrices that it multiplies into memory of the process.

    Embeddings are read from the mapped file. A tied head is a matrix of its own in the
    delegate, beside the embedding.
    """
    mapped = sum(tensor.bytes for tensor in weights.tensors if not _packs(tensor, False))
    packed = sum(_packed(tensor) for tensor in weights.tensors if _packs(tensor, spec.tied_head))
    scratch = _scratch(spec, options)
    return Footprint(
        stored=mapped + packed + _products(spec, options),
        mapped=mapped,
        prefill=prefill_length(spec, options.context),
        activations=_workspace(spec, options) + _arena(spec, options) + scratch,
        runtime=_BASE + _PER_LAYER * spec.layers,
        scratch=scratch,
    )


def _packs(tensor: TensorPlan, tied_head: bool) -> bool:
    """Whether a delegate multiplies by it, or keeps it beside: norms and biases are few bytes."""
    return tensor.name != _POSITIONS and (tensor.name != _EMBEDDING or tied_head)


def _packed(tensor: TensorPlan) -> int:
    """Bytes of a matrix [rows, columns] as XNNPACK's kernels read it (src/packing.cc there)."""
    if len(tensor.shape) != 2:
        return tensor.bytes
    rows, columns = tensor.shape
    if tensor.number is Number.INT8:
        return rows * (columns + _INT8_ROW)
    if tensor.number is Number.INT4:
        groups = columns // tensor.group
        return rows * (columns // 2 + groups * _GROUP_SCALE + _INT4_ROW)
    return _packed_floats(rows, columns)


def _packed_floats(rows: int, columns: int) -> int:
    whole = -(-rows // _PACKED_ROWS) * _PACKED_ROWS
    return whole * (columns + 1) * _FLOAT


def _products(spec: ModelSpec, options: ExportOptions) -> int:
    """Means, and with stock operators rotations: products in the graph, modules.py says why."""
    means = (2 * spec.layers + 1) * (2 if spec.norm is Norm.LAYER else 1)
    total = means * _packed_floats(1, spec.hidden_size)
    if spec.rope is not None and options.ops is Ops.STOCK:
        # Shared rows are turned when they are read; keys that are kept turned, before.
        turned = 1 if spec.sharing.one_tensor else 2
        total += spec.layers * turned * _packed_floats(spec.head_dim, spec.head_dim)
    return total


def _workspace(spec: ModelSpec, options: ExportOptions) -> int:
    """Bytes of what lives inside of a delegate, which spans a feed-forward; all share them."""
    tokens = prefill_length(spec, options.context)
    stream, hidden = (tokens * width * _FLOAT for width in (spec.hidden_size, spec.ffn_size))
    if spec.gated_mlp:
        return stream + 3 * hidden
    # The activation function works in place; its result is rounded beside it.
    return 2 * stream + hidden + (0 if options.weights is Number.FP32 else hidden // _FLOAT)


def _scratch(spec: ModelSpec, options: ExportOptions) -> int:
    """Bytes that the attention kernel takes for the queries of one call, all threads together."""
    return prefill_length(spec, options.context) * spec.heads * spec.head_dim * _FLOAT


def _arena(spec: ModelSpec, options: ExportOptions) -> int:
    """Bytes of the tensors between delegates: the logits, or rows that stock operators turn."""
    tokens = prefill_length(spec, options.context)
    logits = tokens * spec.vocab_size * _FLOAT
    rows = options.context * spec.kv_heads * spec.head_dim * _FLOAT
    beside = 2 * tokens * spec.hidden_size * _FLOAT
    return beside + max(logits, turned_copies(spec, options) * rows)

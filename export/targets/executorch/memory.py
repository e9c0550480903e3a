"""What ExecuTorch holds for a program, its linear layers delegated to XNNPACK."""

from __future__ import annotations

from onekv.export.footprint import Footprint, Step, activation_bytes
from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions
from onekv.export.targets.executorch.rules import prefill_length, turned_copies
from onekv.quantize.plan import WeightPlan

_EMBEDDINGS = ("embed_tokens.weight", "embed_positions.weight")
# Delegates' own structures by layer, and what XNNPACK and its threads take when they first run.
_PER_LAYER, _WORKSPACE = 232_000, 1_800_000


def footprint(spec: ModelSpec, options: ExportOptions, weights: WeightPlan) -> Footprint:
    """XNNPACK packs the matrices that it multiplies into memory of the process.

    Embeddings are read from the mapped file. A tied head is a matrix of its own in the
    delegate, beside the embedding.
    """
    looked_up = sum(t.bytes for t in weights.tensors if t.name in _EMBEDDINGS)
    head = next(t.bytes for t in weights.tensors if t.name == _EMBEDDINGS[0])
    prefill = prefill_length(spec, options.context)
    step = Step(prefill, options.context, rows=turned_copies(spec, options))
    return Footprint(
        stored=weights.bytes + (head if spec.tied_head else 0),
        mapped=looked_up,
        prefill=prefill,
        activations=activation_bytes(spec, step) + _WORKSPACE,
        runtime=_PER_LAYER * spec.layers,
    )

"""A model to the two graphs that an NPU runs: static shapes, integer rows, 16-bit activations."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import torch

from onekv.export.model.rope import rotary_tables
from onekv.export.targets import LowerRequest, Progress
from onekv.export.targets.onnx.encodings import name_of
from onekv.export.targets.onnx.integer_rows import Attached, attach_integer_rows
from onekv.export.targets.onnx.integers import share
from onekv.export.targets.onnx.qdq import round_activations
from onekv.export.targets.onnx.ranges import measure_ranges
from onekv.export.targets.onnx.rules import prefill_length
from onekv.export.targets.onnx.static import trace_static
from onekv.export.targets.onnx.weights import attach, release, save, simplify
from onekv.runtime.onnx_static import DECODE, PREFILL


def lower_static(request: LowerRequest, folder: Path, progress: Progress) -> str:
    """Write `decode.onnx` and `prefill.onnx` over one file of weights; give the first's name.

    Both are written with float activations first, run over the calibration text to learn what
    ranges these take, and then rounded.
    """
    decode, own = _graph(request, 1)
    save(decode, folder / DECODE, progress)
    share(folder / DECODE, own.shared)
    release(decode)
    context = request.options.context
    prefill, twins = _graph(request, prefill_length(context))
    _refer(prefill, folder / DECODE)
    ir.save(prefill, folder / PREFILL)
    share(folder / PREFILL, twins.shared)
    ranges = measure_ranges(folder / PREFILL, context, request.calibration, progress)
    for file, attached in ((DECODE, own), (PREFILL, twins)):
        model = ir.load(folder / file)
        round_activations(model, frozenset(attached.exact), ranges)
        model.producer_name = "onekv"
        ir.save(model, folder / file)
    return DECODE


def _graph(request: LowerRequest, new: int) -> tuple[ir.Model, Attached]:
    spec, options = request.spec, request.options
    model = trace_static(spec, options.context, new)
    simplify(model)
    tensors = dict(request.load())
    if spec.rope is not None:
        tensors["cos"], tensors["sin"] = rotary_tables(spec, options.context)
    attached = attach_integer_rows(model, request.quantised)
    attach(model, tensors, torch.float32)
    return model, attached


def _refer(model: ir.Model, saved: Path) -> None:
    """Let initializers lie where those of the same names in a saved file lie."""
    stored = ir.load(saved).graph.initializers
    for value in model.graph.initializers.values():
        twin = stored.get(name_of(value))
        if twin is not None and isinstance(twin.const_value, ir.ExternalTensor):
            value.const_value = twin.const_value

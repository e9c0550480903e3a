"""Trace, add the operator, attach the weights, and write what onnxruntime-genai reads."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import torch

from onekv.export.model.rope import rotary_tables
from onekv.export.options import Profile
from onekv.export.targets import LowerRequest, Progress
from onekv.export.targets.onnx.body import DOMAIN, operator_function
from onekv.export.targets.onnx.genai import write_genai_config
from onekv.export.targets.onnx.integers import attach_integers, share
from onekv.export.targets.onnx.libraries import ship_libraries
from onekv.export.targets.onnx.npu import lower_static
from onekv.export.targets.onnx.trace import trace
from onekv.export.targets.onnx.weights import attach, release, save, simplify
from onekv.quantize.numbers import Number
from onekv.runtime.rows import RowFormat

FILE = "model.onnx"

# Of activations, and of the weights that stay floats: integers are multiplied with float32.
_FLOATS = {
    Number.FP32: torch.float32,
    Number.FP16: torch.float16,
    Number.INT8: torch.float32,
    Number.INT4: torch.float32,
}


def lower(request: LowerRequest, folder: Path, progress: Progress | None = None) -> str:
    """Write `model.onnx`, its weights and `genai_config.json`; give the name of the first.

    The graph is traced without weights; they are then read and written one at a time.
    """
    spec, options = request.spec, request.options
    if options.profile is Profile.NPU:
        return lower_static(request, folder, progress or (lambda *_: None))
    weights = _FLOATS[options.weights]
    model = trace(spec, options.context, weights, RowFormat(options.cache))
    simplify(model)
    _add_operator(model, request)
    tensors = dict(request.load())
    if spec.rope is not None:
        tensors["cos"], tensors["sin"] = rotary_tables(spec, options.context)
    shared = attach_integers(model, request.quantised)
    attach(model, tensors, weights)
    model.producer_name = "onekv"
    save(model, folder / FILE, progress)
    share(folder / FILE, shared)
    release(model)
    ship_libraries(options.platforms, folder)
    write_genai_config(request, folder, FILE)
    return FILE


def _add_operator(model: ir.Model, request: LowerRequest) -> None:
    form = RowFormat(request.options.cache)
    function = ir.serde.deserialize_function(operator_function(request.spec, form))
    model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1

"""A model to a program."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from onekv.export.model.decoder import build_decoder
from onekv.export.options import Profile
from onekv.export.targets import LowerRequest
from onekv.export.targets.executorch.delegates import caches, partitioner
from onekv.export.targets.executorch.edge import trace, write_program
from onekv.export.targets.executorch.graph import CachedDecoder
from onekv.export.targets.executorch.metadata import metadata
from onekv.export.targets.executorch.modules import exchange_modules
from onekv.export.targets.executorch.rules import prefill_length
from onekv.export.targets.executorch.weights import exchange_weights


def write_model(request: LowerRequest, path: Path) -> None:
    """Trace the decoder with its caches, delegate it, and write the program."""
    spec, options = request.spec, request.options
    prefill = prefill_length(spec, options.context)
    decoder = build_decoder(spec, _floats(request), options.context).requires_grad_(False)
    head = exchange_weights(decoder, request.quantised)
    if options.profile is Profile.CPU:
        exchange_modules(decoder, options.ops)
    kept = caches(spec, options)
    program = trace(CachedDecoder(decoder, head, kept).eval(), prefill)
    delegate = partitioner(options.profile)
    write_program(program, delegate, metadata(request, prefill), path)


def _floats(request: LowerRequest) -> dict[str, Tensor]:
    """Float32 weights; those that integers replace are stood in for by their shape."""
    return {
        name: tensor.to("meta") if name in request.quantised else tensor.float()
        for name, tensor in request.load().items()
    }

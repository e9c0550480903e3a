"""What the pipeline calls: export options to this target's own, and the weights it stores."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

import onekv
from onekv.export.options import ExportOptions
from onekv.export.targets import LowerRequest, Progress
from onekv.export.targets.coreml.rounding import is_matrix, own_rounding
from onekv.export.targets.coreml.rules import coreml_options
from onekv.runtime.mil.tools import quiet


def lower(request: LowerRequest, folder: Path, progress: Progress) -> str:
    """Write the package; its `userDefined` metadata says what it is and how it generates.

    Raises:
        UsageError: the device cannot hold what was asked for.
        OnekvError: coremltools or numpy of a version that breaks the route, or weights that
            fp16 cannot hold.
    """
    with quiet():
        from onekv.export.targets.coreml.package import write_package

    options = coreml_options(request.options)
    return write_package(request, options, folder, metadata(request), progress).name


def metadata(request: LowerRequest) -> dict[str, str]:
    """`userDefined` metadata: the model, the options, and what a generation loop needs."""
    from pydantic_core import to_json

    return {
        "onekv.version": onekv.__version__,
        "onekv.model": to_json(request.spec).decode(),
        "onekv.options": to_json(request.options).decode(),
        "onekv.variant": request.spec.variant,
        "onekv.eos_token_ids": json.dumps(request.eos_token_ids),
        "onekv.bos_token_id": json.dumps(request.bos_token_id),
    }


def stored_weight(name: str, tensor: Tensor, options: ExportOptions) -> Tensor:
    """A weight as the package holds it, unpacked to float32: what its error is measured against.

    Rounding to integers is a choice with a cost of its own; this leaves it out, so that parity
    tells whether the file computes the model that it stores.
    """
    half = tensor.half()
    rounded = own_rounding(half, options.weights) if is_matrix(name, half.shape) else None
    return half.float() if rounded is None else rounded.dequantise()

"""A model to a Core ML package with `prefill` and `decode` functions over shared weights."""

from __future__ import annotations

import gc
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import Tensor

from onekv.errors import OnekvError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Profile
from onekv.export.resident import trim_heap
from onekv.export.targets import LowerRequest, Progress
from onekv.export.targets.coreml import functions, operators, stored, weights
from onekv.export.targets.coreml.channels_first import ChannelsFirstDecoder
from onekv.export.targets.coreml.functions import temporary_files_in
from onekv.export.targets.coreml.options import CoreMLOptions, check_options
from onekv.export.targets.coreml.states import (
    StatefulDecoder,
    state_names,
    state_shape,
    widen_norms,
)
from onekv.export.targets.coreml.versions import check_versions
from onekv.quantize.numbers import Number
from onekv.runtime.mil import read_package
from onekv.runtime.mil.summary import summarise
from onekv.runtime.mil.tools import quiet

PACKAGE = "model.mlpackage"
PREFILL, DECODE = "prefill", "decode"


def write_package(
    request: LowerRequest,
    options: CoreMLOptions,
    folder: Path,
    metadata: Mapping[str, str],
    progress: Progress,
) -> Path:
    """Write `model.mlpackage` into an existing folder.

    Args:
        request: the model and its weights.
        options: the target's own form of the request's options.
        folder: where the package goes.
        metadata: the `userDefined` metadata of the package.
        progress: told of the two conversions and the package.

    Raises:
        UsageError: the device cannot hold what was asked for.
        OnekvError: coremltools or numpy of a version that breaks the route, or weights that
            fp16 cannot hold.
    """
    check_versions()
    check_options(request.spec, options)
    # Matrices that nobody rounded before are rounded here for the Neural Engine alone.
    rounding = options.weights if options.profile is Profile.NPU else Number.FP16
    kept, forms = stored.stored_forms(request, rounding)
    model = _stateful_model(request.spec, kept, options)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, temporary_files_in(Path(scratch)):
        programs = {}
        for name, new in ((PREFILL, options.prefill), (DECODE, 1)):
            with weights.matrices(forms):
                programs[name] = _convert(model, request.spec, options, new)
            progress(len(programs), 3)
        package = Path(scratch) / PACKAGE
        functions.save(programs, DECODE, ct.target[options.deployment_target], package)
        set_metadata(package, metadata)
        check_package(package)
        shutil.move(package, folder / PACKAGE)
        progress(3, 3)
    del model, kept, forms, programs
    # Programs have cycles: without this the weights stay for the stages that follow.
    gc.collect()
    trim_heap()
    return folder / PACKAGE


def _stateful_model(
    spec: ModelSpec, kept: dict[str, Tensor], options: CoreMLOptions
) -> StatefulDecoder:
    """The model in fp16, so that every type in the graph is what the model's code says."""
    decoder = stored.stored_decoder(spec, kept, options.context)
    if options.profile is Profile.NPU:
        return ChannelsFirstDecoder(decoder, options.context).eval()
    widen_norms(decoder)
    return StatefulDecoder(decoder, options.context).eval()


def _convert(model: StatefulDecoder, spec: ModelSpec, options: CoreMLOptions, new: int) -> Any:
    """One function: `new` tokens a call, every shape static."""
    example = (torch.zeros(1, new, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example, check_trace=False)
    stored.zeros.cache_clear()
    shape = state_shape(spec, options.context)
    with quiet(), operators.lowering_for(options.profile):
        return ct.convert(
            traced,
            inputs=[
                ct.TensorType(name="tokens", shape=(1, new), dtype=np.int32),
                ct.TensorType(name="pos", shape=(1,), dtype=np.int32),
            ],
            outputs=[ct.TensorType(name=n, dtype=np.float16) for n in options.logits(spec)],
            states=[
                ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), name=name)
                for name in state_names(spec)
            ],
            convert_to="milinternal",
            minimum_deployment_target=ct.target[options.deployment_target],
            # The traced graph has the types that are wanted: none is to be narrowed.
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=functions.passes(),
        )


def set_metadata(package: Path, metadata: Mapping[str, str]) -> None:
    """Set `userDefined` metadata, which the merge of functions drops."""
    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = ct.proto.Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    model.description.metadata.userDefined.update(metadata)
    file.write_bytes(model.SerializeToString())


def check_package(path: Path) -> None:
    """Refuse a package that a device would refuse, or run far slower than it should.

    Raises:
        OnekvError: it has a custom layer, which ML Programs cannot run, or an open dimension,
            which keeps it off the Neural Engine.
    """
    for function in summarise(read_package(path)).functions:
        if "custom_layer" in function.operators:
            raise OnekvError(
                f"function {function.name!r} has a custom layer, which ML Programs cannot run",
                "An operator was converted without a converter: please report the model.",
            )
        if function.dynamic:
            raise OnekvError(
                f"function {function.name!r} has open dimensions: {', '.join(function.dynamic)}",
                "Please report the model: every shape of an export is to be known.",
            )

"""A model to a Core ML package with `prefill` and `decode` functions over shared weights."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import Tensor

from onekv.errors import OnekvError
from onekv.export.model.spec import ModelSpec
from onekv.export.options import Profile
from onekv.export.targets import Progress
from onekv.export.targets.coreml import functions, operators, stored, weights
from onekv.export.targets.coreml.channels_first import ChannelsFirstDecoder, head_parts
from onekv.export.targets.coreml.functions import temporary_files_in
from onekv.export.targets.coreml.options import (
    FALLBACK_BYTES,
    CoreMLOptions,
    check_options,
)
from onekv.export.targets.coreml.quiet import quiet
from onekv.export.targets.coreml.states import (
    StatefulDecoder,
    state_names,
    state_shape,
    widen_norms,
)
from onekv.export.targets.coreml.versions import check_versions
from onekv.runtime.mil import read_package
from onekv.runtime.mil.summary import summarise

PACKAGE = "model.mlpackage"
PREFILL, DECODE = "prefill", "decode"


@dataclass(frozen=True)
class LoweredPackage:
    """The package that was written, and what its user should be told."""

    path: Path
    size: int
    notes: tuple[str, ...]


def write_package(
    spec: ModelSpec,
    load_state: Callable[[], Mapping[str, Tensor]],
    options: CoreMLOptions,
    folder: Path,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> LoweredPackage:
    """Write `model.mlpackage` into an existing folder.

    Args:
        spec: the model.
        load_state: gives the state dict of a `Decoder`, in any float type.
        options: see `CoreMLOptions`.
        folder: where the package goes.
        metadata: the `userDefined` metadata of the package.
        progress: told of the two conversions and the merge.

    Raises:
        UsageError: the device cannot hold what was asked for.
        OnekvError: coremltools or numpy of a version that breaks the route, or weights that
            fp16 cannot hold.
    """
    check_versions()
    check_options(spec, options)
    kept, forms = stored.stored_forms(load_state(), options.scheme)
    model = _stateful_model(spec, kept, options)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, temporary_files_in(Path(scratch)):
        programs = {}
        for name, new in ((PREFILL, options.prefill), (DECODE, 1)):
            with weights.matrices(forms):
                programs[name] = _convert(model, spec, options, new)
            progress(len(programs), 3)
        package = Path(scratch) / PACKAGE
        functions.save(programs, DECODE, ct.target[options.deployment_target], package)
        set_metadata(package, metadata or {})
        check_package(package)
        target = folder / PACKAGE
        shutil.move(package, target)
        progress(3, 3)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return LoweredPackage(target, size, _notes(spec, options, size))


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
            outputs=[ct.TensorType(name=n, dtype=np.float16) for n in logits_names(spec, options)],
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


def logits_names(spec: ModelSpec, options: CoreMLOptions) -> list[str]:
    """The outputs that, side by side, are the logits [1, S, vocab]."""
    parts = len(head_parts(spec.vocab_size)) if options.profile is Profile.NPU else 1
    return ["logits"] if parts == 1 else [f"logits_{part}" for part in range(parts)]


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


def _notes(spec: ModelSpec, options: CoreMLOptions, size: int) -> tuple[str, ...]:
    notes = []
    if size > FALLBACK_BYTES:
        notes.append(
            f"The package takes {size / 1e9:.2f} GB. Above about 1 GB devices run it on the GPU "
            "or CPU without saying so: choose smaller weights, or measure before you ship."
        )
    names = logits_names(spec, options)
    if len(names) > 1:
        notes.append(
            f"A vocabulary of {spec.vocab_size} is wider than the Neural Engine's tensors: the "
            f"logits come in {len(names)} outputs, to be joined in order."
        )
    return tuple(notes)

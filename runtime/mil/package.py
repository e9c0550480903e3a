"""What a saved package contains, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onekv.errors import BundleError
from onekv.runtime.mil.blobs import BlobFile, StoredArray
from onekv.runtime.mil.values import TensorType, immediate_value, tensor_type

_WEIGHT_PREFIX = "@model_path/"
_DAMAGED = "The package is damaged or was changed: export the model again."


@dataclass(frozen=True)
class Constant:
    """An argument that is known when the package is loaded."""

    value: Any


@dataclass(frozen=True)
class Operation:
    """One operator. An argument is the name of a value, a constant, or a list of those."""

    kind: str
    arguments: Mapping[str, str | Constant | Sequence[str | Constant]]
    outputs: tuple[tuple[str, TensorType], ...]


@dataclass(frozen=True)
class Function:
    """Inputs and states by name, the operators in order, and the names of the outputs.

    `constants` are the values of `const` operators, which are not among `operations`.
    """

    name: str
    inputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Package:
    """A package on disk; arrays of the weight file are read when used, once for all functions."""

    path: Path
    functions: Mapping[str, Function]
    metadata: Mapping[str, str]
    specification_version: int
    weight_bytes: int


def read_package(path: Path) -> Package:
    """Read a `.mlpackage` folder.

    Raises:
        BundleError: not an ML Program package, a file is missing or damaged, or a path
            inside it leaves the package.
        OnekvError: coremltools, which reads its formats, is not installed.
    """
    model, folder = _read_model(path)
    if model.WhichOneof("Type") != "mlProgram":
        raise BundleError(f"{path.name} holds no ML Program", _DAMAGED)
    blobs = _Blobs(folder)
    functions = {
        name: _function(name, proto, blobs) for name, proto in model.mlProgram.functions.items()
    }
    return Package(
        path=path,
        functions=functions,
        metadata=dict(model.description.metadata.userDefined),
        specification_version=model.specificationVersion,
        weight_bytes=blobs.size,
    )


def _read_model(path: Path) -> tuple[Any, Path]:
    """The protobuf of a package and the folder that it lies in."""
    from google.protobuf.message import DecodeError

    from onekv.runtime.mil.tools import proto

    try:
        manifest = json.loads((path / "Manifest.json").read_text())
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        file = path / "Data" / _inside(entry["path"])
        model = proto().Model_pb2.Model()
        model.ParseFromString(file.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, DecodeError) as error:
        raise BundleError(f"{path.name} is not a readable package: {error}", _DAMAGED) from error
    return model, file.parent


def _inside(name: str) -> Path:
    """A relative path that stays where it is, or BundleError."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BundleError(f"the package names a file outside itself: {name!r}", _DAMAGED)
    return path


class _Blobs:
    """The weight files beside a model, each opened once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BlobFile] = {}

    def at(self, name: str, offset: int, kind: TensorType) -> StoredArray:
        if name not in self._files:
            if not name.startswith(_WEIGHT_PREFIX):
                raise BundleError(f"the package names a file outside itself: {name!r}", _DAMAGED)
            self._files[name] = BlobFile(self._folder / _inside(name.removeprefix(_WEIGHT_PREFIX)))
        return self._files[name].at(offset, kind)

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())


def _function(name: str, proto: Any, blobs: _Blobs) -> Function:
    block = proto.block_specializations[proto.opset]
    inputs: dict[str, TensorType] = {}
    states: dict[str, TensorType] = {}
    for entry in proto.inputs:
        if entry.type.WhichOneof("type") == "stateType":
            states[entry.name] = tensor_type(entry.type.stateType.wrappedType)
        else:
            inputs[entry.name] = tensor_type(entry.type)
    constants: dict[str, Any] = {}
    operations = []
    for op in block.operations:
        if op.type == "const":
            constants[op.outputs[0].name] = _value(op.attributes["val"], blobs)
        else:
            operations.append(_operation(op, blobs))
    return Function(name, inputs, states, tuple(operations), tuple(block.outputs), constants)


def _operation(op: Any, blobs: _Blobs) -> Operation:
    arguments: dict[str, Any] = {}
    for name, argument in op.inputs.items():
        bound = [
            binding.name
            if binding.WhichOneof("binding") == "name"
            else Constant(_value(binding.value, blobs))
            for binding in argument.arguments
        ]
        # A list argument of one element looks like a plain one; `values` is always a list.
        arguments[name] = bound if len(bound) > 1 or name == "values" else bound[0]
    for name, value in op.attributes.items():
        if name != "name":
            arguments[name] = Constant(_value(value, blobs))
    outputs = tuple((out.name, tensor_type(out.type)) for out in op.outputs)
    return Operation(op.type, arguments, outputs)


def _value(value: Any, blobs: _Blobs) -> Any:
    kind = tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        place = value.blobFileValue
        return blobs.at(place.fileName, place.offset, kind)
    return immediate_value(value.immediateValue.tensor, kind)


def constant_value(value: Any) -> Any:
    """A constant as the evaluator takes it: read from its file, and floats as float32."""
    if isinstance(value, StoredArray):
        return value.load()
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value

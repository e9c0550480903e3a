"""Runs a function of a package, operator by operator, with its states."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onekv.errors import OnekvError
from onekv.runtime.mil.blobs import StoredArray
from onekv.runtime.mil.operators import OPERATORS
from onekv.runtime.mil.package import Constant, Function, Operation, Package, constant_value

Array = NDArray[Any]
States = dict[str, Array]
Unpacked = dict[tuple[Any, ...], Array]


class Precision(enum.StrEnum):
    """FP16 rounds every result whose type in the file is fp16; FP32 rounds nothing."""

    FP16 = "fp16"
    FP32 = "fp32"


_VECTORISED = 1024
_STATE_KINDS = ("read_state", "write_state")


@dataclass(frozen=True)
class _Step:
    """An operator made ready: constants bound, and what may be forgotten afterwards."""

    operation: Operation
    constants: Mapping[str, Any]
    names: Mapping[str, str | list[str | Constant]]
    rounded: tuple[bool, ...]
    released: tuple[str, ...]
    copied: bool
    in_place: bool


class Evaluator:
    """One function of a package.

    `unpacked` are matrices that other functions of the package have unpacked already; those of
    this one are added.

    Raises:
        OnekvError: the function has operators that are not known; all are named.
    """

    def __init__(
        self,
        package: Package,
        function: str,
        precision: Precision = Precision.FP16,
        unpacked: Unpacked | None = None,
    ) -> None:
        if function not in package.functions:
            known = ", ".join(package.functions)
            raise OnekvError(f"{package.path.name} has no function {function!r} (only {known})")
        self.function = package.functions[function]
        self.precision = precision
        _check_known(self.function)
        self._constants = {k: constant_value(v) for k, v in self.function.constants.items()}
        plain = self._unpack_weights({} if unpacked is None else unpacked)
        self._steps = _prepare(self.function, plain, self._constants, precision)

    def new_states(self) -> States:
        """Zeros, which is what a new Core ML state holds."""
        return {
            name: np.zeros(kind.shape, np.float32) for name, kind in self.function.states.items()
        }

    def run(self, inputs: Mapping[str, Array], states: States) -> dict[str, Array]:
        """The outputs by name. `states` is updated in place.

        Raises:
            OnekvError: an input of the wrong name or shape.
        """
        self._check_inputs(inputs)
        values: dict[str, Any] = {k: _widened(v) for k, v in inputs.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            for step in self._steps:
                self._run_step(step, values, states)
        return {name: values[name] for name in self.function.outputs}

    def _run_step(self, step: _Step, values: dict[str, Any], states: States) -> None:
        kind = step.operation.kind
        if kind == "write_state":
            states[str(step.names["input"])] = values[str(step.names["data"])]
        elif kind == "read_state":
            values[step.operation.outputs[0][0]] = states[str(step.names["input"])]
        else:
            arguments = dict(step.constants)
            for name, source in step.names.items():
                arguments[name] = _fetch(source, values)
            if step.in_place:
                arguments["in_place"] = True
            results = OPERATORS[kind](**arguments)
            if len(step.operation.outputs) == 1:
                results = (results,)
            for (name, _), result, rounded in zip(
                step.operation.outputs, results, step.rounded, strict=True
            ):
                if rounded:
                    result = round_to_fp16(result)
                elif step.copied:
                    result = result.copy()
                values[name] = result
        for name in step.released:
            values.pop(name, None)

    def _check_inputs(self, inputs: Mapping[str, Array]) -> None:
        for name, kind in self.function.inputs.items():
            shape = inputs[name].shape if name in inputs else None
            if shape != kind.shape:
                raise OnekvError(f"input {name!r} has shape {shape}; the package has {kind.shape}")

    def _unpack_weights(self, unpacked: Unpacked) -> list[Operation]:
        """Evaluate the constant expressions; give the operators that are left."""
        plain = []
        for op in self.function.operations:
            if not op.kind.startswith("constexpr_"):
                plain.append(op)
                continue
            arguments = {}
            for name, source in op.arguments.items():
                arguments[name] = (
                    source.value if isinstance(source, Constant) else self._constants[str(source)]
                )
            key = (op.kind, *((k, _identity(v)) for k, v in arguments.items()))
            (name, kind) = op.outputs[0]
            if key not in unpacked:
                arguments = {k: constant_value(v) for k, v in arguments.items()}
                unpacked[key] = OPERATORS[op.kind](**arguments)
                if self.precision is Precision.FP16 and kind.dtype == "FLOAT16":
                    _round_in_place(unpacked[key].reshape(-1))
            self._constants[name] = unpacked[key]
        return plain


def _identity(value: Any) -> Any:
    """Equal for equal arguments: where an array is stored, or the array itself."""
    return value if isinstance(value, StoredArray) else np.asarray(value).tobytes()


def round_to_fp16(value: Array) -> Array:
    """The nearest fp16 numbers, as float32; what is too large becomes infinite."""
    if value.size >= _VECTORISED:
        # torch converts with vector instructions, numpy element by element.
        half = torch.from_numpy(np.ascontiguousarray(value)).half()
        rounded: Array = half.float().numpy()
        return rounded
    return value.astype(np.float16).astype(np.float32)


def _round_in_place(values: Array, step: int = 1 << 20) -> None:
    """Round a flat array, part by part: matrices are large."""
    for begin in range(0, len(values), step):
        part = values[begin : begin + step]
        part[:] = round_to_fp16(part)


def _widened(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _fetch(source: str | list[str | Constant], values: Mapping[str, Any]) -> Any:
    if isinstance(source, str):
        return values[source]
    return [s.value if isinstance(s, Constant) else values[s] for s in source]


def _check_known(function: Function) -> None:
    kinds = {op.kind for op in function.operations}
    unknown = sorted(kinds - OPERATORS.keys() - set(_STATE_KINDS))
    if unknown:
        raise OnekvError(
            f"function {function.name!r} has operators that the evaluator lacks: "
            f"{', '.join(unknown)}",
            "Run the package on a Mac or a phone; only packages of onekv are evaluated here.",
        )


def _prepare(
    function: Function,
    operations: list[Operation],
    constants: Mapping[str, Any],
    precision: Precision,
) -> list[_Step]:
    last_use = _last_uses(operations)
    chained = {
        name
        for op in operations
        if op.kind in ("read_state", "slice_update")
        for name, _ in op.outputs
    }
    steps = []
    for index, op in enumerate(operations):
        bound: dict[str, Any] = {}
        names: dict[str, str | list[str | Constant]] = {}
        for key, source in op.arguments.items():
            _bind(key, source, constants, bound, names)
        used = _used(op)
        dying = tuple(
            name
            for name in used
            if last_use[name] == index and name not in function.outputs and name not in constants
        )
        steps.append(
            _Step(
                operation=op,
                constants=bound,
                names=names,
                rounded=tuple(
                    precision is Precision.FP16 and kind.dtype == "FLOAT16" and _rounds(op)
                    for _, kind in op.outputs
                ),
                released=dying,
                # A view of a state's array must not see the updates that follow.
                copied=op.kind not in _STATE_KINDS
                and op.kind != "slice_update"
                and bool(chained.intersection(used)),
                in_place=op.kind == "slice_update" and _owns(op, index, operations, dying, chained),
            )
        )
    return steps


def _bind(
    key: str,
    source: Any,
    constants: Mapping[str, Any],
    bound: dict[str, Any],
    names: dict[str, str | list[str | Constant]],
) -> None:
    """Sort an argument into what is known now and what is looked up in each run."""
    if isinstance(source, Constant):
        bound[key] = constant_value(source.value)
    elif isinstance(source, str):
        if source in constants:
            bound[key] = constants[source]
        else:
            names[key] = source
    else:
        names[key] = [
            Constant(constants[s]) if isinstance(s, str) and s in constants else s for s in source
        ]


def _used(op: Operation) -> list[str]:
    used = []
    for source in op.arguments.values():
        for name in [source] if isinstance(source, str | Constant) else source:
            if isinstance(name, str):
                used.append(name)
    return used


def _last_uses(operations: list[Operation]) -> dict[str, int]:
    return {name: index for index, op in enumerate(operations) for name in _used(op)}


_MOVES = frozenset(
    (
        "concat",
        "expand_dims",
        "gather",
        "identity",
        "reshape",
        "slice_by_index",
        "slice_update",
        "split",
        "squeeze",
        "stack",
        "tile",
        "transpose",
    )
)


def _rounds(op: Operation) -> bool:
    """Whether an operator computes; one that only moves elements has nothing to round."""
    return op.kind not in _MOVES


def _owns(
    op: Operation,
    index: int,
    operations: list[Operation],
    dying: tuple[str, ...],
    chained: set[str],
) -> bool:
    """Whether an update may overwrite its input: nobody reads the old value afterwards.

    The input may be the array of a state, which then has to receive the update before it is
    read again.
    """
    source = op.arguments["x"]
    if source not in dying or source not in chained:
        return False
    for later in operations[index + 1 :]:
        if later.kind == "write_state" and later.arguments["data"] == op.outputs[0][0]:
            return True
        if later.kind in _STATE_KINDS:
            return False
    return False

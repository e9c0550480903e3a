"""What a package holds, in figures: functions, states, shapes, operators, sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from onekv.runtime.mil.compression import StoredWeight, stored_weights
from onekv.runtime.mil.package import Package
from onekv.runtime.mil.values import TensorType

OFF_NEURAL_ENGINE = frozenset(
    ("custom_layer", "gather", "greater", "greater_equal", "less", "less_equal", "select")
)
"""Operators that run on the CPU or GPU instead; docs/coreml.md tells where that is known from."""


@dataclass(frozen=True)
class FunctionSummary:
    """`dynamic` names values with an open dimension; `off_neural_engine` counts operators."""

    name: str
    inputs: dict[str, TensorType]
    operators: dict[str, int]
    dynamic: tuple[str, ...]
    off_neural_engine: dict[str, int]


@dataclass(frozen=True)
class PackageSummary:
    """Sizes in bytes; `states` by name, at the full context."""

    functions: tuple[FunctionSummary, ...]
    states: dict[str, int]
    package_bytes: int
    weight_bytes: int
    weights: tuple[StoredWeight, ...]
    metadata: dict[str, str]
    specification_version: int


@dataclass(frozen=True)
class Compression:
    """Weights that are stored alike. bits: of one parameter, scales and palettes included."""

    form: str
    weights: int
    parameters: int
    bits: float
    bytes: int


def compressions(weights: tuple[StoredWeight, ...]) -> tuple[Compression, ...]:
    """The weights by the way in which they are stored."""
    alike: dict[str, list[StoredWeight]] = {}
    for weight in weights:
        alike.setdefault(_form(weight), []).append(weight)
    found = []
    for form, group in alike.items():
        parameters, size = sum(w.parameters for w in group), sum(w.bytes for w in group)
        found.append(Compression(form, len(group), parameters, 8 * size / parameters, size))
    return tuple(found)


def _form(weight: StoredWeight) -> str:
    if weight.granularity is None:
        return weight.stored
    if weight.granularity == "palette":
        return f"{weight.bits}-bit palettes for {weight.group} rows"
    each = "row" if weight.granularity == "row" else f"{weight.group} columns"
    return f"{weight.stored} with a scale per {each}"


def summarise(package: Package) -> PackageSummary:
    """The figures of a package."""
    functions, states = [], {}
    for function in package.functions.values():
        operators = Counter(op.kind for op in function.operations)
        values = [*function.inputs.items(), *function.states.items()]
        values += [output for op in function.operations for output in op.outputs]
        functions.append(
            FunctionSummary(
                name=function.name,
                inputs=dict(function.inputs),
                operators=dict(operators.most_common()),
                dynamic=tuple(name for name, kind in values if not kind.static),
                off_neural_engine={k: n for k, n in operators.items() if k in OFF_NEURAL_ENGINE},
            )
        )
        states.update({name: kind.nbytes for name, kind in function.states.items()})
    return PackageSummary(
        functions=tuple(functions),
        states=states,
        package_bytes=sum(f.stat().st_size for f in package.path.rglob("*") if f.is_file()),
        weight_bytes=package.weight_bytes,
        weights=stored_weights(package),
        metadata=dict(package.metadata),
        specification_version=package.specification_version,
    )

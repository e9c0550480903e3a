"""What a `.pte` says about itself: who computes what, and the memory that it plans."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onekv.errors import BundleError
from onekv.runtime.quiet import quiet

# The start of a file that holds its program's length, and of any file at all.
_HEADER_BYTES, _SMALLEST = 64, 12
_LIBRARIES = ("onekv", "llama", "quantized_decomposed")
_FREE = ("executorch_prim", "prim")


@dataclass(frozen=True)
class ProgramSummary:
    """The method `forward` of a program.

    delegates: parts that a backend computes, by backend. operators: calls of custom operators,
    by name. portable: calls of ordinary operators that no backend took, which the kernels of
    the CPU compute. activations, cache: bytes of the two arenas. file_bytes: of the whole file.
    """

    delegates: dict[str, int]
    operators: dict[str, int]
    portable: dict[str, int]
    activations: int
    cache: int
    file_bytes: int


def read_program(path: Path) -> ProgramSummary:
    """Read a program's description; weights stay in the file.

    Raises:
        BundleError: the file is no program, is cut short, or has no `forward`.
    """
    plan = _forward_plan(path)
    if len(plan.non_const_buffer_sizes) != 3:
        raise BundleError(
            f"{path.name} has no arena of its own for a cache",
            "Only programs that onekv exported can be inspected.",
        )
    calls = Counter(
        _operator(plan, instruction.instr_args.op_index)
        for chain in plan.chains
        for instruction in chain.instructions
        if type(instruction.instr_args).__name__ == "KernelCall"
    )
    own = {name: count for name, count in calls.items() if _library(name) in _LIBRARIES}
    free = {name for name in calls if _library(name) in _FREE}
    _, activations, cache = plan.non_const_buffer_sizes
    return ProgramSummary(
        delegates=dict(Counter(delegate.id for delegate in plan.delegates)),
        operators=own,
        portable={
            name: count for name, count in calls.items() if name not in own and name not in free
        },
        activations=activations,
        cache=cache,
        file_bytes=path.stat().st_size,
    )


def planned_bytes(path: Path) -> int:
    """Bytes of all arenas of `forward`, in a program of anybody.

    Raises:
        BundleError: the file is no program, is cut short, or has no `forward`.
    """
    return sum(_forward_plan(path).non_const_buffer_sizes)


def _forward_plan(path: Path) -> Any:
    plans = _parse(path).execution_plan
    plan = next((plan for plan in plans if plan.name == "forward"), None)
    if plan is None:
        raise BundleError(f"{path.name} has no method forward", "Is it a language model?")
    return plan


def _operator(plan: Any, index: int) -> str:
    operator = plan.operators[index]
    return f"{operator.name}.{operator.overload}" if operator.overload else str(operator.name)


def _library(name: str) -> str:
    return name.partition("::")[0]


def _parse(path: Path) -> Any:
    # Imports the exporter, which takes seconds.
    with quiet():
        from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
        from executorch.exir._serialize._program import _get_extended_header

    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
        header = _get_extended_header(start) if len(start) > _SMALLEST else None
        size = path.stat().st_size
        if header is None or not 0 < header.program_size <= size:
            raise BundleError(f"{path.name} is not a whole ExecuTorch program", "Copy it again.")
        file.seek(0)
        data = file.read(header.program_size)
    try:
        return _flatbuffer_to_program(data)
    except Exception as error:  # A damaged table fails in as many ways as there are fields.
        raise BundleError(f"{path.name} is damaged: {error}", "Copy it again.") from error

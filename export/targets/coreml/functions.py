"""Several converted programs as the functions of one package, every constant stored once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Program, types
from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline

from onekv.runtime.mil.tools import quiet


def passes() -> Any:
    """coremltools' passes for a program that is serialised as it is."""
    chosen = ct.PassPipeline()
    for name in PassPipeline.get_pipeline("backend_mlprogram").passes:
        chosen.append_pass(name)
    return chosen


def save(programs: Mapping[str, Any], default: str, target: Any, package: Path) -> None:
    """Write the `main` functions of programs, under their names, as one package.

    `save_multifunction` of coremltools reads the packages of both functions back and compares
    their weights as float64: five times the memory.
    """
    joined = Program()
    for name, program in programs.items():
        joined.add_function(name, program.functions["main"])
    joined.default_function_name = default
    joined.export_as_multifunction = joined.skip_all_passes = True
    for function in joined.functions.values():
        for operation in function.operations:
            value = operation.outputs[0].val if operation.op_type == "const" else None
            if isinstance(value, np.ndarray):
                operation.weight_id = _content(value, operation.outputs[0].dtype)
    with quiet():
        ct.convert(
            joined,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=target,
            skip_model_load=True,
            package_dir=str(package),
        )


def _content(value: Any, dtype: Any) -> str:
    """Equal for equal arrays: constants of one id are stored once."""
    digest = hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return f"{types.builtin_to_string(dtype)} {value.shape} {digest.hexdigest()}"


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """coremltools leaves files where `tempfile` puts them: let that be a folder that goes."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before

"""A bundle's `.pte` in ExecuTorch's Python runtime."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# The documented front of this module imports the whole exporter, which takes seconds.
from executorch.extension.pybindings import _C

from onekv.errors import BundleError
from onekv.runtime import executorch_library, kernel_library
from onekv.runtime.quiet import native_notes, quiet
from onekv.runtime.sessions import STOCK, Counted, Logits, check_room

VERSION_METHOD = "onekv_executorch_version"
"""The method of a program that gives the ExecuTorch it was made with."""

LIBRARIES_METHOD = "onekv_operator_libraries"
"""The method that names the libraries whose operators a program calls, separated by spaces."""


class ExecutorchSession(Counted):
    """Implements `Session`. Prompts longer than one call go through in several."""

    def __init__(self, path: Path, context: int) -> None:
        super().__init__(context)
        program = _open(path)
        made_with = str(_constant(path, program, VERSION_METHOD))
        self._libraries = str(_constant(path, program, LIBRARIES_METHOD)).split()
        for library in self._libraries:
            load_operators(library)
        held = int(_constant(path, program, "get_max_context_len"))
        if context > held:
            raise BundleError(
                f"{path.name} has a cache for {held} tokens, not for {context}",
                "Export again with a larger --context.",
            )
        self._chunk = int(_constant(path, program, "get_max_seq_len"))
        self._forward = _forward(path, program, made_with)
        planned = self._forward.method_meta()
        caches = map(planned.attribute_tensor_meta, range(planned.num_attributes()))
        self._cache_bytes = sum(int(cache.nbytes()) for cache in caches)
        # The runtime keeps the file mapped only as long as its program lives.
        self._program = program

    @property
    def cache_bytes(self) -> int:
        return self._cache_bytes

    @property
    def kernel(self) -> bool:
        return "onekv" in self._libraries

    @property
    def operators(self) -> str:
        if not self.kernel:
            return STOCK
        return f"onekv kernel, {kernel_library.best_isa()}"

    def step(self, tokens: Sequence[int]) -> Logits:
        check_room(self, len(tokens))
        parts = [tokens[at : at + self._chunk] for at in range(0, len(tokens), self._chunk)]
        return np.concatenate([self._call(part) for part in parts])

    def _call(self, tokens: Sequence[int]) -> Logits:
        ids = torch.tensor([list(tokens)], dtype=torch.int64)
        (logits,) = self._forward([ids, torch.tensor([self._position])])
        self._position += len(tokens)
        rows: Logits = logits[0].float().numpy()
        return rows


def load_operators(library: str) -> None:
    """Give this process the operators of one library, by the name that programs list.

    Raises:
        BundleError: an unknown name.
        OnekvError: onekv's own library cannot be built or loaded.
    """
    known: dict[str, Callable[[], object]] = {
        "onekv": executorch_library.load,
        "llama": _load_llama,
        "quantized": _load_quantized,
    }
    if library not in known:
        raise BundleError(
            f"the program needs the operators of {library!r}, which this onekv does not know",
            "Update onekv.",
        )
    with quiet():
        known[library]()


def _load_llama() -> None:
    import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401


def _load_quantized() -> None:
    import executorch.kernels.quantized  # noqa: F401


def _open(path: Path) -> Any:
    try:
        with native_notes():
            return _C._load_program(str(path))
    except RuntimeError as error:
        raise BundleError(
            f"{path.name} is not a program that ExecuTorch {version('executorch')} reads: {error}",
            "Copy the bundle again, or export again.",
        ) from error


def _constant(path: Path, program: Any, name: str) -> Any:
    methods = map(program.get_method_name, range(program.num_methods()))
    if name not in methods:
        raise BundleError(
            f"{path.name} has no method {name}", "Only programs that onekv exported can be run."
        )
    return program.load_method(name)([])[0]


def _forward(path: Path, program: Any, made_with: str) -> Any:
    with native_notes() as said:
        try:
            return program.load_method("forward")
        except (RuntimeError, KeyError) as error:
            failure, lacks = error, missing_operators(said())
    installed = version("executorch")
    cause = f"ExecuTorch {installed} cannot load {path.name}: {failure}"
    if lacks:
        cause += f"; it has no kernel for {', '.join(lacks)}"
    if installed != made_with:
        raise BundleError(
            f"{cause}; it was made with ExecuTorch {made_with}",
            f"pip install executorch=={made_with}, or export again with {installed}.",
        ) from failure
    raise BundleError(
        cause, "A backend or a library that the program needs is not in this runtime."
    ) from failure


def missing_operators(notes: str) -> list[str]:
    """The operators that ExecuTorch's log says it has no kernels for, each once."""
    return sorted(set(re.findall(r"Missing operator: \[\d+\] (\S+)", notes)))

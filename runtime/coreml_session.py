"""A Core ML package as a session: Core ML on a Mac, the evaluator elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onekv.errors import BundleError
from onekv.runtime.mil import Evaluator, Precision, read_package
from onekv.runtime.mil.evaluator import Unpacked
from onekv.runtime.mil.package import Function, Package
from onekv.runtime.sessions import FixedCalls, Logits, Session

Outputs = Mapping[str, NDArray[Any]]
PREFILL, DECODE = "prefill", "decode"


class CoreMLSession(FixedCalls):
    """Implements `Session` over the two functions of a package.

    `run` computes one function; both read and write the same states.
    """

    def __init__(
        self,
        package: Package,
        context: int,
        run: Callable[[str, Mapping[str, NDArray[Any]]], Outputs],
        reset: Callable[[], None],
    ) -> None:
        prefill, decode = _functions(package)
        super().__init__(context, prefill.inputs["tokens"].shape[1])
        states = decode.states.values()
        if {state.shape[2] for state in states} != {context}:
            raise BundleError(f"{package.path.name} has states of another length than {context}")
        self._outputs = decode.outputs
        self._bytes = sum(state.nbytes for state in states)
        self._run, self._reset = run, reset

    @property
    def cache_bytes(self) -> int:
        return self._bytes

    def reset(self) -> None:
        super().reset()
        self._reset()

    def call(self, ids: NDArray[np.int64], count: int) -> Logits:
        """Rows that padding writes are hidden from every query until tokens replace them."""
        name = DECODE if ids.shape[1] == 1 else PREFILL
        position = np.full(1, self._position, np.int32)
        outputs = self._run(name, {"tokens": ids.astype(np.int32), "pos": position})
        logits = np.concatenate([outputs[name][0, :count] for name in self._outputs], axis=-1)
        return logits.astype(np.float32)


def open_coreml(path: Path, context: int) -> Session:
    """A session on a package: through Core ML on macOS, through the evaluator elsewhere.

    Raises:
        BundleError: the package is damaged, or not one of onekv's.
    """
    package = read_package(path)
    return (
        mac_session(package, context) if sys.platform == "darwin" else evaluated(package, context)
    )


def evaluated(
    package: Package, context: int, precision: Precision = Precision.FP16
) -> CoreMLSession:
    """A session that the evaluator computes."""
    unpacked: Unpacked = {}
    functions = {name: Evaluator(package, name, precision, unpacked) for name in (PREFILL, DECODE)}
    states = functions[DECODE].new_states()

    def run(name: str, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        return functions[name].run(inputs, states)

    def reset() -> None:
        states.update(functions[DECODE].new_states())

    return CoreMLSession(package, context, run, reset)


def mac_session(package: Package, context: int) -> CoreMLSession:
    """A session that Core ML computes (macOS 15 and later). Not run here: it needs a Mac."""
    import coremltools as ct

    models = {
        name: ct.models.MLModel(str(package.path), function_name=name) for name in (PREFILL, DECODE)
    }
    # A state belongs to no function: both read and write the one that `decode` made.
    held = {"state": models[DECODE].make_state()}

    def run(name: str, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        outputs: Outputs = models[name].predict(dict(inputs), state=held["state"])
        return outputs

    def reset() -> None:
        held["state"] = models[DECODE].make_state()

    return CoreMLSession(package, context, run, reset)


def _functions(package: Package) -> tuple[Function, Function]:
    missing = {PREFILL, DECODE} - package.functions.keys()
    if missing:
        raise BundleError(
            f"{package.path.name} has no function {', '.join(sorted(missing))}",
            "Only packages that onekv exported can be run.",
        )
    return package.functions[PREFILL], package.functions[DECODE]

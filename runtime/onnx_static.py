"""Graphs of static shapes, made for an NPU, in ONNX Runtime: the cache is kept here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onekv.errors import BundleError
from onekv.runtime.onnx_rounding import float_activations, row_encodings, session_of
from onekv.runtime.onnx_settings import refusal
from onekv.runtime.sessions import FixedCalls, Logits

Outputs = Mapping[str, NDArray[Any]]

DECODE, PREFILL = "decode.onnx", "prefill.onnx"
"""The graphs of a bundle: one token a call, and several."""

_TYPES = {"tensor(int16)": np.int16, "tensor(float)": np.float32}


def is_static(path: Path) -> bool:
    """Whether a bundle's entry is one of a pair of graphs of static shapes."""
    return path.name == DECODE


class StaticSession(FixedCalls):
    """Implements `Session` over graphs by the number of tokens that a call of them takes.

    `watch` sees all outputs.
    """

    def __init__(
        self,
        graphs: Mapping[int, ort.InferenceSession],
        context: int,
        watch: Callable[[Outputs], None] | None = None,
    ) -> None:
        super().__init__(context, max(graphs), min(graphs))
        self._graphs, self._watch = graphs, watch
        self._caches = {
            entry.name: np.zeros(entry.shape, _TYPES[entry.type])
            for entry in graphs[min(graphs)].get_inputs()
            if entry.name.startswith("past.")
        }
        if any(cache.shape[2] != context for cache in self._caches.values()):
            raise BundleError(f"the graphs have caches of another length than {context}")

    @property
    def cache_bytes(self) -> int:
        return sum(cache.nbytes for cache in self._caches.values())

    def call(self, ids: NDArray[np.int64], count: int) -> Logits:
        """Rows that padding makes are given back by the graph, and not put into the cache."""
        graph = self._graphs[ids.shape[1]]
        past_length = np.full(1, self._position, np.int64)
        feeds = {"input_ids": ids, "past_length": past_length, **self._caches}
        names = [entry.name for entry in graph.get_outputs()]
        outputs = dict(zip(names, graph.run(names, feeds)))
        for name, cache in self._caches.items():
            new = outputs[name.replace("past.", "new.", 1)]
            cache[:, :, self._position : self._position + count] = new[:, :, :count]
        if self._watch:
            self._watch(outputs)
        logits: Logits = outputs["logits"][0, :count]
        return logits


def open_static(path: Path, context: int, exact: bool = False) -> StaticSession:
    """The graphs of the bundle whose entry is `path`; `exact` leaves activations floats.

    Raises:
        BundleError: ONNX Runtime refuses a graph, or one is of another model.
    """
    graphs = {}
    encodings: dict[str, tuple[bytes, ...]] = {}
    for file in (path, path.with_name(PREFILL)):
        try:
            model = onnx.load(file, load_external_data=False)
            for name, found in row_encodings(model).items():
                if encodings.setdefault(name, found) != found:
                    raise ValueError(f"{name} has another encoding than its cache in {path.name}")
            session = session_of(float_activations(model) if exact else model, path.parent)
        except Exception as error:
            raise refusal(file, error) from error
        ids = next(entry for entry in session.get_inputs() if entry.name == "input_ids")
        graphs[int(ids.shape[1])] = session
    return StaticSession(graphs, context)

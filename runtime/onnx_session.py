"""A bundle's ONNX file in ONNX Runtime, its cache updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onekv.runtime import kernel_library, native
from onekv.runtime.onnx_integers import multiplies_integers, with_float_activations
from onekv.runtime.onnx_settings import find_weights, lean_settings, reason, refusal
from onekv.runtime.sessions import STOCK, Counted, Logits, check_room


@dataclass(frozen=True)
class OnnxOptions:
    """`threads` 0 leaves the number to ONNX Runtime.

    `prepack` lets the runtime copy weights into a layout of its own: decoding is somewhat
    faster, and the weights are held in memory instead of mapped from the file. None does so for
    integer weights, whose products are a hundred times slower without. `exact` leaves
    activations in float32 where the file rounds them to int8. `kernel` False
    leaves attention to the file's own body of stock operators, True insists on onekv's kernel,
    None takes the kernel where it is installed and has the model's shape.
    """

    threads: int = 0
    prepack: bool | None = None
    exact: bool = False
    kernel: bool | None = None


class OnnxSession(Counted):
    """Implements `Session`. Cache tensors are allocated once for `context` tokens."""

    def __init__(self, path: Path, context: int, options: OnnxOptions | None = None) -> None:
        super().__init__(context)
        self._session, self._operators = _load(path, options or OnnxOptions())
        self._caches = {}
        for entry in self._session.get_inputs():
            if entry.name.startswith("past_key_values."):
                shape = [1, entry.shape[1], context, entry.shape[3]]
                # Zeroed pages are taken from the system only when a row is written.
                zeros = np.zeros(shape, _NUMPY_TYPES[entry.type])
                self._caches[entry.name] = ort.OrtValue.ortvalue_from_numpy(zeros)

    @property
    def kernel(self) -> bool:
        return not self._operators.startswith(STOCK)

    @property
    def operators(self) -> str:
        return self._operators

    @property
    def cache_bytes(self) -> int:
        return sum(value.numpy().nbytes for value in self._caches.values())

    def step(self, tokens: Sequence[int]) -> Logits:
        check_room(self, len(tokens))
        binding = self._session.io_binding()
        ids = np.asarray(tokens, np.int64)[None]
        positions = np.arange(self._position, self._position + len(tokens), dtype=np.int64)[None]
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("position_ids", positions)
        for name, value in self._caches.items():
            # One buffer on both ends, so that the runtime appends instead of copying.
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        self._position += len(tokens)
        # A copy: the runtime may reuse the buffer that `.numpy()` shows.
        logits: Logits = binding.get_outputs()[-1].numpy()[0].copy()
        return logits


def _load(path: Path, options: OnnxOptions) -> tuple[ort.InferenceSession, str]:
    """A session, and which form of the operator it runs."""
    if options.kernel is False:
        return _stock_session(path, options), STOCK
    if options.kernel is None and native.find_library(native.ONNX) is None:
        return _stock_session(path, options), f"{STOCK}: {native.ONNX} is not installed"
    library = native.require_library(native.ONNX)
    settings = _settings(path, options)
    # A refusal comes back as an exception: the log would only repeat it.
    settings.log_severity_level = 4
    try:
        settings.register_custom_ops_library(str(library))
        return _session(path, settings, options), f"onekv kernel, {kernel_library.best_isa()}"
    except Exception as error:
        if options.kernel:
            raise refusal(path, error) from error
        # The file's own body says what is wrong with the file, if that is what it was.
        return _stock_session(path, options), f"{STOCK}: {reason(error)}"


def _stock_session(path: Path, options: OnnxOptions) -> ort.InferenceSession:
    try:
        return _session(path, _settings(path, options), options)
    except Exception as error:
        raise refusal(path, error) from error


def _session(
    path: Path, settings: ort.SessionOptions, options: OnnxOptions
) -> ort.InferenceSession:
    model: str | bytes = str(path)
    if options.exact and multiplies_integers(path):
        model = with_float_activations(path)
        find_weights(settings, path.parent)
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _settings(path: Path, options: OnnxOptions) -> ort.SessionOptions:
    settings = lean_settings()
    settings.intra_op_num_threads = options.threads
    prepack = options.prepack
    if not (multiplies_integers(path) if prepack is None else prepack):
        settings.add_session_config_entry("session.disable_prepacking", "1")
    return settings


_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}

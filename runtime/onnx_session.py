"""A bundle's ONNX file in ONNX Runtime, its cache updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onekv.errors import BundleError
from onekv.runtime.sessions import Counted, Logits, check_room


@dataclass(frozen=True)
class OnnxOptions:
    """`threads` 0 leaves the number to ONNX Runtime.

    `prepack` lets the runtime copy weights into a layout of its own: decoding is somewhat
    faster, and the weights are held in memory instead of mapped from the file.
    """

    threads: int = 0
    prepack: bool = False


class OnnxSession(Counted):
    """Implements `Session`. Cache tensors are allocated once for `context` tokens."""

    def __init__(self, path: Path, context: int, options: OnnxOptions | None = None) -> None:
        super().__init__(context)
        self._session = _load(path, options or OnnxOptions())
        self._caches = {}
        for entry in self._session.get_inputs():
            if entry.name.startswith("past_key_values."):
                shape = [1, entry.shape[1], context, entry.shape[3]]
                # Zeroed pages are taken from the system only when a row is written.
                zeros = np.zeros(shape, _NUMPY_TYPES[entry.type])
                self._caches[entry.name] = ort.OrtValue.ortvalue_from_numpy(zeros)

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


def _load(path: Path, options: OnnxOptions) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    if not options.prepack:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}",
            "Export the model again, or update onnxruntime.",
        ) from error


_NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

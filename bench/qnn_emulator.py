"""An npu bundle on the emulator of Qualcomm's NPU, beside ONNX Runtime on the CPU.

Runs in an environment of its own (onnxruntime, onnxruntime-qnn, numpy) without onekv. Every node
has to run on the emulated NPU: falling back to the CPU is switched off. Tokens are fed through
both graphs, each runtime with a cache of its own, and the logits compared; JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxruntime_qnn

_GRAPHS = ("prefill.onnx", "decode.onnx")
_PROVIDER = "QNNExecutionProvider"
# Snapdragon 8 Elite, whose NPU is of generation 79, emulated as the generation 75 that it includes.
_DEVICE = {"backend_type": "htp", "soc_model": "69", "htp_arch": "75"}

Open = Callable[[Path], ort.InferenceSession]


def on_cpu(path: Path) -> ort.InferenceSession:
    """A graph as it is written: every quantisation a node of its own."""
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def on_npu(path: Path) -> ort.InferenceSession:
    """A graph compiled for the emulated NPU, or an error if a node does not run there."""
    devices = [device for device in ort.get_ep_devices() if device.ep_name == _PROVIDER]
    npu = [d for d in devices if d.device.type == ort.OrtHardwareDeviceType.NPU] or devices
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings.add_provider_for_devices(npu[:1], _DEVICE)
    return ort.InferenceSession(str(path), settings)


class Model:
    """A bundle's two graphs with the cache between them."""

    def __init__(self, bundle: Path, opened: Open) -> None:
        begin = time.perf_counter()
        self.prefill, self.decode = (opened(bundle / name) for name in _GRAPHS)
        self.load_seconds = time.perf_counter() - begin
        inputs = {entry.name: entry for entry in self.prefill.get_inputs()}
        self.chunk = inputs["input_ids"].shape[1]
        self.past = {n: np.zeros(e.shape, np.int16) for n, e in inputs.items() if "past." in n}
        self.context = next(iter(self.past.values())).shape[2]

    def logits(self, tokens: list[int], decoded: int) -> np.ndarray:
        """Logits [tokens, vocab] from an empty cache, the last `decoded` ones one by one."""
        rows, at = [], 0
        while at < len(tokens) - decoded:
            rows.append(self._call(self.prefill, tokens, at, self.chunk))
            at += self.chunk
        for place in range(at, len(tokens)):
            rows.append(self._call(self.decode, tokens, place, 1))
        return np.concatenate(rows)

    def _call(self, graph: Any, tokens: list[int], at: int, count: int) -> np.ndarray:
        ids = np.asarray([tokens[at : at + count]], np.int64)
        feeds = {"input_ids": ids, "past_length": np.full(1, at, np.int64), **self.past}
        names = [entry.name for entry in graph.get_outputs()]
        outputs = dict(zip(names, graph.run(names, feeds)))
        for name, cache in self.past.items():
            cache[:, :, at : at + count] = outputs[name.replace("past.", "new.", 1)]
        rows: np.ndarray = outputs["logits"][0]
        return rows


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Of logits [rows, vocab], in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    result: np.ndarray = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    return result


def compare(bundle: Path, tokens: list[int], window: int, decoded: int) -> dict[str, Any]:
    """How the NPU's logits lie to the CPU's, over windows that do not overlap."""
    models = {"cpu": Model(bundle, on_cpu), "npu": Model(bundle, on_npu)}
    chunk = models["cpu"].chunk
    window = min(window, models["cpu"].context)
    length = (window - decoded) // chunk * chunk + decoded
    found: dict[str, list[np.ndarray]] = {name: [] for name in models}
    seconds = dict.fromkeys(models, 0.0)
    windows = [tokens[s : s + length] for s in range(0, len(tokens) - length + 1, length)]
    for part in windows:
        for name, model in models.items():
            begin = time.perf_counter()
            found[name].append(model.logits(part, decoded))
            seconds[name] += time.perf_counter() - begin
    cpu, npu = (np.stack(found[name]) for name in models)
    log_cpu, log_npu = (log_probabilities(logits)[:, :-1] for logits in (cpu, npu))
    targets = np.asarray(windows)[:, 1:, None]

    def perplexity(log: np.ndarray) -> float:
        return float(np.exp(-np.take_along_axis(log, targets, -1).mean()))

    def error(rows: slice) -> float:
        wide = cpu[:, rows].astype(np.float64)
        return float(np.linalg.norm(npu[:, rows] - wide) / np.linalg.norm(wide))

    return {
        "bundle": bundle.name,
        "onnxruntime": ort.__version__,
        "windows": len(windows),
        "tokens_per_window": length,
        "decoded_per_window": decoded,
        "relative_l2_prefill": error(slice(0, length - decoded)),
        "relative_l2_decode": error(slice(length - decoded, length)),
        "kl": float((np.exp(log_cpu) * (log_cpu - log_npu)).sum(-1).mean()),
        "top1": float((log_cpu.argmax(-1) == log_npu.argmax(-1)).mean()),
        "perplexity_cpu": perplexity(log_cpu),
        "perplexity_npu": perplexity(log_npu),
        "compile_seconds": models["npu"].load_seconds,
        "seconds": seconds,
    }


def main() -> None:
    """Compare, print, and fail above a relative L2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("tokens", type=Path, help="a JSON list of token ids")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--decoded", type=int, default=16, help="tokens of a window fed singly")
    parser.add_argument("--most", type=float, default=0.02, help="relative L2 that is allowed")
    asked = parser.parse_args()
    ort.register_execution_provider_library(_PROVIDER, onnxruntime_qnn.get_library_path())
    tokens = json.loads(asked.tokens.read_text())
    found = compare(asked.bundle, tokens, asked.window, asked.decoded)
    print(json.dumps(found, indent=2))
    if not max(found["relative_l2_prefill"], found["relative_l2_decode"]) <= asked.most:
        raise SystemExit(f"the emulated NPU differs by more than {asked.most}")


if __name__ == "__main__":
    main()

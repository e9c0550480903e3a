"""An ONNX file's decode with onekv's kernel against its own stock operators, in one run.

`python -m onekv.bench.attention_forms`: models of random weights at several depths; both forms of
the same file take turns. The machine's streaming-read bandwidth stands beside every time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onekv.bench.kernel.contest import streaming_read
from onekv.export.model.shapes import parameter_shapes
from onekv.export.model.spec import ModelSpec, Sharing
from onekv.export.options import ExportOptions, Target
from onekv.export.targets import LowerRequest, lower
from onekv.quantize.numbers import Number
from onekv.runtime.onnx_session import OnnxOptions, OnnxSession

SHAPES = {
    "samples/tiny": ModelSpec(
        vocab_size=2048, layers=4, hidden_size=256, heads=4, kv_heads=2, head_dim=64,
        ffn_size=512, max_positions=8448, sharing=Sharing.K_IS_V,
    ),
    "SmolLM2-135M": ModelSpec(
        vocab_size=49152, layers=30, hidden_size=576, heads=9, kv_heads=3, head_dim=64,
        ffn_size=1536, max_positions=8448, sharing=Sharing.K_IS_V,
    ),
}  # fmt: skip
DEPTHS = (0, 2048, 8192)


@dataclass(frozen=True)
class Step:
    """Median milliseconds of one decode step behind `depth` tokens, by the form of attention."""

    model: str
    cache: str
    depth: int
    kernel: float
    stock: float
    cache_bytes: int

    @property
    def ratio(self) -> float:
        """How many times the kernel's tokens per second are those of stock operators."""
        return self.stock / self.kernel


class _Session(OnnxSession):
    """A session whose cache is filled without a prefill: a step costs what any rows cost."""

    def fill(self, depth: int) -> None:
        """Stand behind `depth` tokens."""
        self._position = depth

    def draw(self, decoded: np.ndarray) -> None:
        """Fill all rows with what a float cache of a running model may hold."""
        for value in self._caches.values():
            rows = value.numpy()
            rows[...] = np.resize(decoded, rows.shape).astype(rows.dtype)


def export_random(name: str, cache: Number, folder: Path) -> tuple[Path, ExportOptions]:
    """The file of a shape, its weights random in fp32; as it is when it is there already."""
    spec = SHAPES[name]
    options = ExportOptions(Target.ONNX, spec.max_positions, Number.FP32, cache)
    place = folder / f"{name.replace('/', '-')}-{cache}"
    if not (place / "genai_config.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        lower(LowerRequest(spec, options, lambda: _weights(spec), (0,), None), place, _ignore)
    return place / "model.onnx", options


def _weights(spec: ModelSpec) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.02 if len(shape) > 1 else 1)
        for name, shape in parameter_shapes(spec).items()
    }


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


def measure(name: str, cache: Number, folder: Path, depths: Sequence[int], threads: int,
            seconds: float) -> list[Step]:  # fmt: skip
    """Both forms at every depth: processor time of one thread, else wall time.

    Raises:
        OnekvError: the kernel is not installed.
    """
    path, options = export_random(name, cache, folder)
    forms = {
        kernel: _Session(path, options.context, OnnxOptions(threads=threads, kernel=kernel))
        for kernel in (True, False)
    }
    if cache in (Number.FP32, Number.FP16):
        rows = np.random.default_rng(0).standard_normal(100_003, dtype=np.float32)
        for session in forms.values():
            session.draw(rows)
    steps = []
    for depth in depths:
        # The processor time of one thread is what other work on the machine disturbs least.
        clock = time.process_time if threads == 1 else time.perf_counter
        kernel, stock = _medians(forms, depth, seconds, clock)
        steps.append(Step(name, cache, depth, kernel, stock, forms[True].cache_bytes))
    return steps


def _medians(
    forms: dict[bool, _Session], depth: int, seconds: float, clock: Callable[[], float]
) -> tuple[float, float]:
    taken: dict[bool, list[float]] = {True: [], False: []}
    for session in forms.values():
        _step(session, depth, clock)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(taken[False]) < 3:
        for form, session in forms.items():
            taken[form].append(_step(session, depth, clock))
    return float(np.median(taken[True])), float(np.median(taken[False]))


def _step(session: _Session, depth: int, clock: Callable[[], float]) -> float:
    session.fill(depth)
    start = clock()
    session.step([1])
    return (clock() - start) * 1e3


def table(steps: Sequence[Step], stream: float) -> str:
    """The steps as lines of text."""
    lines = [f"streaming read {stream:.1f} GB/s"]
    lines += [
        f"{step.model:14} {step.cache:5} depth {step.depth:5}"
        f"  kernel {1e3 / step.kernel:7.1f} tok/s  stock {1e3 / step.stock:7.1f} tok/s"
        f"  kernel/stock {step.ratio:.2f}"
        for step in steps
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--caches", nargs="+", type=Number, default=[Number.FP32, Number.FP16])
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2, help="per depth")
    parser.add_argument("--folder", type=Path, default=Path("build/attention-forms"))
    parser.add_argument("--export-only", action="store_true", help="write the files and stop")
    parser.add_argument("--json", type=Path, help="file for the figures")
    asked = parser.parse_args()
    cases = [(name, cache) for name in asked.models for cache in asked.caches]
    for name, cache in cases:
        export_random(name, cache, asked.folder)
    if asked.export_only:
        return
    stream, steps = streaming_read(asked.threads), []
    for name, cache in cases:
        found = measure(name, cache, asked.folder, asked.depths, asked.threads, asked.seconds)
        print(table(found, stream), flush=True)
        steps += found
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"stream_gb_s": stream, "steps": [asdict(step) for step in steps]}
        asked.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

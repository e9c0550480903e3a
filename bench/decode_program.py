"""Decode speed of a `.pte` at several depths, as a program: PROGRAM PTE DEPTHS TOKENS LIBRARY...

It runs in a peer's environment too, so it imports nothing of onekv. A LIBRARY is a path, or
`llama` or `quantized` for those of ExecuTorch. Prints a JSON list of seconds per token.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

_CHUNK = 64


def main(pte: str, depths: list[int], tokens: int, libraries: list[str]) -> list[float]:
    """The median seconds of one token at each depth; the cache is filled by the model itself."""
    import torch
    from executorch.extension.pybindings import _C

    for library in libraries:
        _load(library)
    program = _C._load_program(pte)
    forward = program.load_method("forward")
    call = _caller(torch, forward)
    medians, position = [], 0
    for depth in depths:
        for size in _pieces(depth - position):
            call(position, size)
            position += size
        times = []
        for _ in range(tokens):
            begin = time.perf_counter()
            call(position, 1)
            times.append(time.perf_counter() - begin)
            position += 1
        medians.append(statistics.median(times))
        print(f"depth {depth}: {medians[-1]:.4f} s a token", file=sys.stderr, flush=True)
    return medians


def _pieces(tokens: int) -> Iterator[int]:
    for start in range(0, tokens, _CHUNK):
        yield min(_CHUNK, tokens - start)


def _caller(torch: Any, forward: Any) -> Any:
    """Calls `forward` on tokens at a position, given as one number or as one for each token."""
    scalar = list(forward.method_meta().input_tensor_meta(1).sizes()) == [1]

    def call(position: int, size: int) -> None:
        positions = torch.arange(position, position + (1 if scalar else size))
        forward([torch.full((1, size), 1, dtype=torch.int64), positions])

    return call


def _load(library: str) -> None:
    if library == "llama":
        from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    elif library == "quantized":
        import executorch.kernels.quantized  # noqa: F401
    else:
        ctypes.CDLL(library)


if __name__ == "__main__":
    _, pte, depths, tokens, *libraries = sys.argv
    print(json.dumps(main(pte, json.loads(depths), int(tokens), libraries)))

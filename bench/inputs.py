"""What the benchmarks of exports start from, made once and kept in their work folder."""

from __future__ import annotations

import sys
from pathlib import Path

from onekv.bench.measure import run_measured

ONEKV = str(Path(sys.executable).with_name("onekv"))
"""The command of this environment."""


LARGEST = "paper-1.2b"
"""The name of the paper's largest shape."""


def smollm2(work: Path, gguf: Path) -> Path:
    """SmolLM2-135M as a Hugging Face folder, which the tools of others read too."""
    model = work / "smollm2"
    if not model.exists():
        run_measured([ONEKV, "convert", gguf, "-o", model], work / "convert.log")
    return model


def largest(work: Path) -> Path:
    """The paper's 1.2B Q-K=V shape as a `.pt` of seeded random weights."""
    checkpoint = work / f"{LARGEST}.pt"
    if not checkpoint.exists():
        # A process of its own, so that its memory does not count towards the export's.
        program = (sys.executable, "-m", "onekv.bench.random_paper", checkpoint)
        run_measured(program, work / "random.log")
    return checkpoint

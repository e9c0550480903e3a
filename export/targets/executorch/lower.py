"""What the pipeline calls: a model to `model.pte`."""

from __future__ import annotations

from pathlib import Path

from onekv.export.targets import LowerRequest, Progress
from onekv.runtime.quiet import quiet

FILE = "model.pte"


def lower(request: LowerRequest, folder: Path, progress: Progress | None = None) -> str:
    """Write `model.pte`; give its name."""
    with quiet():
        from onekv.export.targets.executorch.model import write_model

        write_model(request, folder / FILE)
    return FILE

"""One package per runtime. A target never imports another.

Each target has one `lower(request, folder, progress)`, which writes the runtime's files into
`folder` and gives the name of the one to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onekv.export.model.spec import ModelSpec
from onekv.export.options import ExportOptions

if TYPE_CHECKING:
    from torch import Tensor

# Called with the steps done and the steps in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LowerRequest:
    """What a target is given. `load` maps the weights, named as in `Decoder`, when called."""

    spec: ModelSpec
    options: ExportOptions
    load: Callable[[], Mapping[str, Tensor]]
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None

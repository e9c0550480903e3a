"""Frameworks without their notes on what onekv does not use."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings and notes; what goes wrong still arrives as an exception.

    torchao names libraries for GPUs that are not there, torch what it will deprecate, and the
    Vulkan delegate each operator that it takes, on the root logger, whose level it sets itself.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

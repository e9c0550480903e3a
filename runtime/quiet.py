"""Frameworks without their notes on what onekv does not use."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator


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


@contextlib.contextmanager
def native_notes() -> Iterator[Callable[[], str]]:
    """Hold back what native code writes to standard error; gives what reads it so far.

    ExecuTorch's library of CPU features reports each file that an x86 machine does not have.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as stack:
        terminal = os.dup(2)
        stack.callback(os.close, terminal)
        os.dup2(held.fileno(), 2)
        stack.callback(os.dup2, terminal, 2)

        def said() -> str:
            held.seek(0)
            return held.read().decode(errors="replace")

        yield said

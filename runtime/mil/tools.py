"""The parts of coremltools that read its files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from onekv.errors import OnekvError

_FIX = 'Install it: pip install "onekv[coreml]".'


def proto() -> Any:
    """coremltools' protobuf modules. Raises OnekvError when it is not installed."""
    try:
        with quiet():
            from coremltools import proto as modules
    except ImportError as error:
        raise OnekvError(f"reading Core ML packages needs coremltools: {error}", _FIX) from error
    return modules


def blob_reader(path: str) -> Any:
    """coremltools' reader of weight files."""
    try:
        with quiet():
            from coremltools.libmilstoragepython import _BlobStorageReader
    except ImportError as error:
        raise OnekvError(f"reading Core ML weights needs coremltools: {error}", _FIX) from error
    return _BlobStorageReader(path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep coremltools off stderr. What goes wrong still arrives as an exception.

    It warns of libraries that exist on a Mac only and of versions, which onekv checks itself;
    torchao, which it imports where that is installed, makes PyTorch's own logger warn.
    """
    loggers = [logging.getLogger(name) for name in ("coremltools", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""The parts of coremltools that read its files."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

from onekv.errors import OnekvError

_FIX = 'Install it: pip install "onekv[coreml]".'


def proto() -> Any:
    """coremltools' protobuf modules. Raises OnekvError when it is not installed."""
    try:
        with _quiet():
            from coremltools import proto as modules
    except ImportError as error:
        raise OnekvError(f"reading Core ML packages needs coremltools: {error}", _FIX) from error
    return modules


def blob_reader(path: str) -> Any:
    """coremltools' reader of weight files."""
    try:
        with _quiet():
            from coremltools.libmilstoragepython import _BlobStorageReader
    except ImportError as error:
        raise OnekvError(f"reading Core ML weights needs coremltools: {error}", _FIX) from error
    return _BlobStorageReader(path)


@contextlib.contextmanager
def _quiet() -> Any:
    """Importing coremltools warns of libraries that exist on a Mac only."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)

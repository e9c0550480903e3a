"""Give memory back to the system between the stages that use it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


def drop_pages(files: Iterable[Path]) -> None:
    """Drop this process's resident pages of mapped files; elsewhere than on Linux do nothing.

    The files stay mapped: a page is read again when it is touched (madvise(2), MADV_DONTNEED
    on a file mapping). Nothing may have written to the mappings, whose changes would be lost;
    checkpoints are only read. Without this, a checkpoint that was read once counts towards
    the memory of every later stage.
    """
    if not _MAPS.exists():
        return
    libc = ctypes.CDLL(None)
    for start, length in _mappings({str(path.resolve()) for path in files}):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED)


def trim_heap() -> None:
    """Give freed blocks back that glibc keeps for later; elsewhere do nothing (malloc_trim(3)).

    Lists of small arrays leave gaps behind that the large arrays of the next stage do not fit.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mappings(paths: set[str]) -> Iterator[tuple[int, int]]:
    """Start and length of every mapping of these files: proc(5), /proc/pid/maps."""
    for line in _MAPS.read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] in paths:
            start, end = (int(part, 16) for part in fields[0].split("-"))
            yield start, end - start

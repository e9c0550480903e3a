"""Give mapped weights back to the system between the stages that read them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# madvise(2), Linux 5.4: reclaim now. Never loses data: a page is read again when it is needed.
_MADV_PAGEOUT = 21


def page_out(tensors: Iterable[Tensor]) -> None:
    """Drop the resident pages of mapped tensors; elsewhere than on Linux this does nothing.

    Files stay mapped, so the tensors stay valid. Without it a checkpoint that was read once
    counts towards the memory of every later stage.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "madvise"):
        return
    for tensor in tensors:
        start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - start
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)

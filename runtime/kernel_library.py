"""The C++ kernel through its C interface: finding, loading and calling it.

Structures and codes mirror kernel/attend.h. Pointers are addresses, so numpy, torch and ONNX
Runtime memory are all called the same way; torch is not imported here.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path

from onekv.errors import OnekvError
from onekv.runtime import native

ABI = 1
BEST_ISA = -1
HALF_SPLIT, INTERLEAVED = 0, 1


class KernelError(OnekvError):
    """The kernel refused a call; nothing was written. `status` is its `onekv_status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class CTensor(Structure):
    """`onekv_tensor`: activations [B, S, heads, D]; strides count elements."""

    _fields_ = (
        ("data", c_void_p),
        ("batch_stride", c_int64),
        ("token_stride", c_int64),
        ("head_stride", c_int64),
    )


class CRows(Structure):
    """`onekv_rows`: cached rows [B, Hkv, L] in one or two parts; strides count bytes."""

    _fields_ = (
        ("part", c_void_p * 2),
        ("batch_stride", c_int64),
        ("head_stride", c_int64),
        ("row_stride", c_int64),
    )


class CAttendArgs(Structure):
    """`onekv_attend_args`; see attend.h for what each field means."""

    _fields_ = (
        ("abi", c_uint32),
        ("size", c_uint32),
        ("batch", c_int64),
        ("new_tokens", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("head_dim", c_int64),
        ("length", c_int64),
        ("position", c_int64),
        ("window", c_int64),
        ("scale", c_float),
        ("activations", c_int32),
        ("q", CTensor),
        ("new_rows", CTensor),
        ("new_values", CTensor),
        ("out", CTensor),
        ("format", c_int32),
        ("rows", CRows),
        ("values", CRows),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("table_length", c_int64),
        ("table_stride", c_int64),
        ("pairing", c_int32),
        ("key_gain", c_void_p),
        ("parallel", c_void_p),
        ("parallel_context", c_void_p),
        ("threads", c_int32),
        ("isa", c_int32),
    )

    def __init__(self, **fields: object) -> None:
        defaults = {"abi": ABI, "size": ctypes.sizeof(type(self)), "isa": BEST_ISA}
        super().__init__(**{**defaults, **fields})


def library_path() -> Path:
    """Where the installed library lies.

    Raises:
        OnekvError: this installation has none.
    """
    return native.require_library(native.KERNEL)


@functools.cache
def load(path: Path | None = None) -> ctypes.CDLL:
    """The library with its functions declared; `path` is for builds other than the installed."""
    library = ctypes.CDLL(str(path or library_path()))
    library.onekv_attend.argtypes = [POINTER(CAttendArgs)]
    library.onekv_status_text.restype = c_char_p
    library.onekv_row_bytes.argtypes = [c_int32, c_int64]
    library.onekv_row_bytes.restype = c_int64
    for name in ("onekv_encode_row", "onekv_decode_row"):
        getattr(library, name).argtypes = [c_int32, c_int64, c_void_p, c_void_p]
    library.onekv_isa_name.restype = c_char_p
    return library


def attend(args: CAttendArgs, library: ctypes.CDLL | None = None) -> None:
    """Run `onekv_attend`.

    Raises:
        KernelError: the arguments were refused; nothing was written.
    """
    library = library or load()
    status = library.onekv_attend(ctypes.byref(args))
    if status:
        raise KernelError(status, library.onekv_status_text(status).decode())


def supported_isas(library: ctypes.CDLL | None = None) -> dict[str, int]:
    """The instruction sets that this CPU can run, by name, with their index."""
    library = library or load()
    return {
        library.onekv_isa_name(isa).decode(): isa
        for isa in range(library.onekv_isa_count())
        if library.onekv_isa_supported(isa)
    }


def best_isa(library: ctypes.CDLL | None = None) -> str:
    """The instruction set that calls use unless they name one."""
    library = library or load()
    name: bytes = library.onekv_isa_name(library.onekv_isa_best())
    return name.decode()

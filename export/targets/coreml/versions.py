"""Which coremltools and numpy work together, checked before minutes of work."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from onekv.errors import OnekvError

_FIX = 'Install the tested pair: pip install "coremltools==9.0" "numpy==2.3.5".'


def check_versions() -> None:
    """Raise OnekvError for a missing coremltools, or a pair that breaks the conversion."""
    try:
        tools = version("coremltools")
    except PackageNotFoundError:
        raise OnekvError("coremltools is not installed", _FIX) from None
    if _numbers(tools) < (9,):
        raise OnekvError(f"coremltools {tools} is older than 9.0", _FIX)
    numpy = version("numpy")
    if _numbers(tools) == (9, 0) and _numbers(numpy) >= (2, 4):
        raise OnekvError(f"coremltools {tools} cannot convert with numpy {numpy}", _FIX)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split(".")[:2]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)

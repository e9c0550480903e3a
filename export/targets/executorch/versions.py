"""The version of ExecuTorch, which a program and its runtime must share."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from onekv.errors import OnekvError

TESTED = "1.5"
_FIX = "Install the tested version: pip install 'onekv[executorch]'."


def check_versions() -> None:
    """Raise OnekvError for an ExecuTorch that is missing or of another series than tested."""
    try:
        installed = version("executorch")
    except PackageNotFoundError:
        raise OnekvError("ExecuTorch is not installed", _FIX) from None
    if not installed.startswith(f"{TESTED}."):
        raise OnekvError(
            f"ExecuTorch {installed} is not {TESTED}, which exports are made for", _FIX
        )

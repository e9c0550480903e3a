"""What devicectl says when it refuses, as errors that name the reason and what to do.

The words are those that projects have published with their failures; not run here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onekv.bench.devices.base import DeviceError
from onekv.bench.records import ErrorKind

RESUME = "What was measured is kept. Connect and unlock the iPhone, then go on with --resume."
# Errors lie in errors: no more of them than this are read.
_DEEPEST = 8
_LONGEST = 120


@dataclass(frozen=True)
class Refusal:
    """`words`, any of which devicectl uses in lower case, and what they mean."""

    words: tuple[str, ...]
    meaning: str
    fix: str
    kind: ErrorKind = ErrorKind.DEVICE_LOST


DEVELOPER_MODE_OFF = Refusal(
    ("developer mode",),
    "Developer Mode is off on the iPhone",
    "Switch it on under Settings, Privacy & Security; the iPhone restarts.",
)
_REFUSALS = (
    Refusal(
        ("could not be, unlocked", "reason: locked", "is locked", "passcode protected"),
        "the iPhone is locked",
        "Unlock it, set Auto-Lock to Never while it measures, and go on with --resume.",
    ),
    DEVELOPER_MODE_OFF,
    Refusal(
        ("explicitly trusted", "invalid code signature"),
        "the iPhone does not trust who signed the app",
        "Trust the developer under Settings, General, VPN & Device Management.",
        ErrorKind.USAGE,
    ),
    Refusal(
        ("not installed", "fbsapplicationlibrary", "containerlookuperrordomain"),
        "the app that measures is not installed, or not by a developer",
        "Install it from Xcode, and set ONEKV_IOS_APP to its bundle identifier.",
        ErrorKind.USAGE,
    ),
    Refusal(
        ("developer disk image",),
        "the iPhone is not prepared for development",
        "Open Xcode once with the iPhone connected; it must not be older than its iOS.",
    ),
    Refusal(
        ("not enough space", "no space left", "out of space", "disk is full"),
        "the iPhone is full",
        "Free some space on the iPhone, then go on with --resume.",
        ErrorKind.DEVICE_FULL,
    ),
    Refusal(("device was not found",), "the iPhone is gone", RESUME),
)


def refusal(said: str) -> DeviceError:
    """The error that devicectl's words stand for."""
    low = said.lower()
    known = next((r for r in _REFUSALS if any(word in low for word in r.words)), None)
    shown = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:_LONGEST]
    if known is None:
        return DeviceError(ErrorKind.DEVICE_LOST, f"devicectl: {shown}", RESUME)
    return told(known, shown)


def told(known: Refusal, said: str) -> DeviceError:
    """The error of a refusal, with the words that it was known by."""
    return DeviceError(known.kind, f"{known.meaning} (devicectl: {said})", known.fix)


def words(content: Mapping[str, Any]) -> str:
    """The descriptions of the error in a JSON answer, and of those that lie in it."""
    return " ".join(_words(content.get("error"), _DEEPEST))


def _words(error: object, deepest: int) -> Iterator[str]:
    if not isinstance(error, Mapping) or not deepest:
        return
    about = error.get("userInfo")
    about = about if isinstance(about, Mapping) else {}
    for key in ("NSLocalizedDescription", "NSLocalizedFailureReason"):
        text = about.get(key)
        text = text.get("string") if isinstance(text, Mapping) else None
        if isinstance(text, str):
            yield text
    if isinstance(error.get("domain"), str):
        yield f"({error['domain']} error {error.get('code')})"
    under = about.get("NSUnderlyingError")
    yield from _words(under.get("error") if isinstance(under, Mapping) else None, deepest - 1)

"""Xcode's devicectl: its JSON answers, and its failures as errors that name the iPhone.

Written against `xcrun devicectl help` and the answers that projects have published. Not run here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onekv.bench.devices.base import DeviceError
from onekv.bench.devices.processes import run_text
from onekv.bench.records import ErrorKind
from onekv.errors import UsageError

RESUME = "What was measured is kept. Connect and unlock the iPhone, then go on with --resume."
# What CoreDevice calls a device that is not reachable now.
_UNREACHABLE = ("unavailable",)


class Devicectl:
    """One iPhone by its UDID. `answer`: seconds to wait for an answer to a small request."""

    def __init__(self, udid: str, answer: float = 120.0) -> None:
        self.udid, self._answer = udid, answer

    def ask(self, *arguments: str, timeout: float | None = None) -> Mapping[str, Any]:
        """The `result` of `devicectl device ARGUMENTS`.

        Raises:
            DeviceError: the iPhone is gone, locked or full, or refuses.
        """
        return _ask("device", *arguments, "--device", self.udid, timeout=timeout or self._answer)

    def console(self, *arguments: str, timeout: float) -> str:
        """What an app that was launched prints until it ends, and devicectl's words on its end.

        Raises:
            TimeoutError: it still runs after `timeout` seconds; it has been ended.
        """
        command = [*_program(), "device", "process", "launch", "--console", "--terminate-existing"]
        command += ["--device", self.udid, *arguments]
        try:
            done = run_text(command, timeout)
        except subprocess.TimeoutExpired:
            # The console owns the app: without it the app is ended.
            raise TimeoutError from None
        return done.stdout + done.stderr


def choose_udid(asked: str | None) -> str:
    """The UDID that was asked for, or that of the only iPhone that is connected.

    Raises:
        DeviceError: that iPhone is not there, or there is none.
        UsageError: several are there and none was named; or this is no Mac with Xcode.
    """
    found = {}
    for device in _ask("list", "devices", timeout=60).get("devices", ()):
        hardware, connection = (
            _part(device, "hardwareProperties"),
            _part(device, "connectionProperties"),
        )
        if hardware.get("platform") != "iOS" or hardware.get("reality") == "simulated":
            continue
        if connection.get("tunnelState") in _UNREACHABLE:
            continue
        found[str(hardware.get("udid"))] = str(hardware.get("marketingName"))
    names = ", ".join(f"{udid} ({name})" for udid, name in found.items()) or "none"
    if asked is None and len(found) > 1:
        raise UsageError(f"{len(found)} iPhones are connected: {names}", "Name one: ios:UDID.")
    if asked is None and found:
        return next(iter(found))
    if asked is None or asked not in found:
        what = "no iPhone" if asked is None else f"no iPhone {asked!r}"
        raise DeviceError(
            ErrorKind.DEVICE_LOST,
            f"devicectl sees {what}",
            f"Connected: {names}. Unlock it, trust this Mac, and switch Developer Mode on.",
        )
    return asked


def signal_of(console: str) -> int | None:
    """The signal that ended an app by devicectl's last words; None when it ended by itself."""
    found = re.findall(r"App terminated due to signal (\d{1,3})", console)
    return int(found[-1]) if found else None


def jetsam_reason(report: str, process: str) -> str | None:
    """Why the system killed a process for memory, by a JetsamEvent report (`.ips`).

    Such a file is two JSON documents, the second of which lists the processes; the one that was
    killed has a `reason`, such as per-process-limit.
    """
    try:
        body = json.loads(report.partition("\n")[2])
        processes = body["processes"]
        reasons = [p["reason"] for p in processes if p.get("name") == process and p.get("reason")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return str(reasons[0]) if reasons else None


def _ask(*arguments: str, timeout: float) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix="onekv-devicectl-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            done = run_text([*_program(), *arguments, "--json-output", str(answer)], timeout)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                ErrorKind.DEVICE_LOST, f"the iPhone did not answer for {timeout:.0f} s", RESUME
            ) from None
        content = _content(answer)
    if done.returncode == 0 and "result" in content:
        result: Mapping[str, Any] = content["result"]
        return result
    raise _failure(_words(content) or done.stderr.strip() or "no reason given")


def _program() -> list[str]:
    if shutil.which("xcrun") is None:
        raise UsageError(
            "xcrun is not installed: iPhones are measured from a Mac with Xcode 15 or newer",
            "Use a Mac, or measure on host or android.",
        )
    return ["xcrun", "devicectl"]


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _words(content: Mapping[str, Any]) -> str | None:
    """The error's own description."""
    told = _part(_part(_part(content, "error"), "userInfo"), "NSLocalizedDescription")
    words = told.get("string")
    return words if isinstance(words, str) else None


def _failure(words: str) -> DeviceError:
    said = "".join(c for c in words if c.isprintable())[:160]
    if "space" in words.lower() and "device" in words.lower():
        kind, fix = (
            ErrorKind.DEVICE_FULL,
            "Free some space on the iPhone, then go on with --resume.",
        )
    else:
        kind, fix = ErrorKind.DEVICE_LOST, RESUME
    return DeviceError(kind, f"devicectl: {said}", fix)


def _part(content: object, name: str) -> Mapping[str, Any]:
    part = content.get(name) if isinstance(content, Mapping) else None
    return part if isinstance(part, Mapping) else {}

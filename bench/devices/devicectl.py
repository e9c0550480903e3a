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
from onekv.bench.devices.iphone_refusals import (
    DEVELOPER_MODE_OFF,
    RESUME,
    refusal,
    told,
    words,
)
from onekv.bench.devices.processes import run_text
from onekv.bench.records import ErrorKind
from onekv.errors import UsageError

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
            DeviceError: it was not launched, or the iPhone went away while it ran.
            TimeoutError: it still runs after `timeout` seconds; it has been ended.
        """
        command = [*_program(), "device", "process", "launch", "--console", "--terminate-existing"]
        command += ["--device", self.udid, *arguments]
        try:
            done = run_text(command, timeout)
        except subprocess.TimeoutExpired:
            # The console owns the app: without it the app is ended.
            raise TimeoutError from None
        said = done.stdout + done.stderr
        # Errors are told on lines of their own; the app's own words are no reason.
        errors = re.findall(r"^ERROR: .+(?:\n[ \t].*)*", done.stderr, re.MULTILINE)
        if done.returncode and errors and signal_of(said) is None:
            raise refusal(" ".join(errors))
        return said


def choose_udid(asked: str | None) -> str:
    """The UDID that was asked for, or that of the only iPhone that is connected.

    Raises:
        DeviceError: that iPhone is not there, or there is none.
        UsageError: several are there and none was named; or this is no Mac with Xcode.
    """
    found: dict[str, Any] = {}
    away: set[str] = set()
    for device in _ask("list", "devices", timeout=60).get("devices", ()):
        hardware, connection = (
            _part(device, "hardwareProperties"),
            _part(device, "connectionProperties"),
        )
        if hardware.get("platform") != "iOS" or hardware.get("reality") == "simulated":
            continue
        udid = str(hardware.get("udid"))
        if connection.get("tunnelState") in _UNREACHABLE:
            away.add(udid)
            continue
        found[udid] = device
    names = ", ".join(f"{udid} ({_name(device)})" for udid, device in found.items()) or "none"
    if asked is None and len(found) > 1:
        raise UsageError(f"{len(found)} iPhones are connected: {names}", "Name one: ios:UDID.")
    chosen = next(iter(found), None) if asked is None else asked
    if chosen is None or chosen not in found:
        what = "sees no iPhone" if chosen is None else f"sees no iPhone {chosen!r}"
        if chosen in away:
            what = f"knows the iPhone {chosen!r} and does not reach it"
        raise DeviceError(
            ErrorKind.DEVICE_LOST,
            f"devicectl {what}",
            f"Connected: {names}. Unlock it, trust this Mac, and switch Developer Mode on.",
        )
    if _developer_mode(found[chosen]) == "disabled":
        raise told(DEVELOPER_MODE_OFF, f"{chosen} has developerModeStatus disabled")
    return chosen


def _name(device: object) -> str:
    return str(_part(device, "hardwareProperties").get("marketingName"))


def _developer_mode(device: object) -> object:
    """A word, or in newer answers an object with that word as its key."""
    status = _part(device, "deviceProperties").get("developerModeStatus")
    return next(iter(status), None) if isinstance(status, Mapping) else status


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
    raise refusal(words(content) or done.stderr.strip() or "no reason given")


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


def _part(content: object, name: str) -> Mapping[str, Any]:
    part = content.get(name) if isinstance(content, Mapping) else None
    return part if isinstance(part, Mapping) else {}

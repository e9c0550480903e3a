"""The adb program: what it says when a phone is gone, full or refuses, as errors that name it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from onekv.bench.devices.base import DeviceError
from onekv.bench.devices.processes import run_text
from onekv.bench.records import ErrorKind
from onekv.errors import UsageError

RESUME = "What was measured is kept. Connect the phone and go on with --resume."
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_FULL = "No space left on device"
# The last line of every command: adb ends with 0 when a connection breaks.
_END = "onekv-exit"
_STATES = {
    "offline": "it is connected but offline; reconnect it",
    "unauthorized": "confirm this computer's key on its screen",
    "no": "this user may not open its USB device",
    "recovery": "it is in recovery",
    "sideload": "it is in sideload mode",
    "bootloader": "it is in its bootloader",
}


@dataclass(frozen=True)
class Output:
    """What a command on the phone gave."""

    code: int
    out: str


class Adb:
    """One phone by its serial. Every call names the phone when it fails.

    patience: seconds to wait for a phone that went away, to tell a reboot from a pulled cable.
    answer: seconds after which a phone that says nothing to a small command counts as gone.
    """

    def __init__(self, serial: str, patience: float = 30.0, answer: float = 60.0) -> None:
        self.serial = serial
        self._program = find_adb()
        self._patience, self._answer = patience, answer
        self._boot = self.shell(f"cat {_BOOT_ID}").out.strip()

    def shell(self, script: str, timeout: float | None = None) -> Output:
        """Run a script in the phone's shell.

        Raises:
            DeviceError: the phone is gone or refuses.
            TimeoutError: it still runs after `timeout` seconds, which was given.
        """
        wrapped = f"({script}\n); echo {_END} $?"
        try:
            done = self._run("shell", wrapped, timeout=timeout or self._answer)
        except subprocess.TimeoutExpired:
            if timeout is not None:
                raise TimeoutError from None
            raise self._silent(self._answer) from None
        text, found, code = done.stdout.replace("\r\n", "\n").rpartition(_END)
        if not found or not code.strip().isdecimal():
            raise self._lost(done.stderr)
        return Output(int(code), text)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the phone.

        Raises:
            DeviceError: the phone is gone or full.
        """
        self._copy("push", str(local), remote, size=local.stat().st_size)

    def pull(self, remote: str, local: Path, size: int) -> None:
        """Copy a file of `size` bytes from the phone.

        Raises:
            DeviceError: the phone is gone.
        """
        self._copy("pull", remote, str(local), size=size)

    def full(self, needed: int, free: int) -> DeviceError:
        """The error of a phone without room."""
        return DeviceError(
            ErrorKind.DEVICE_FULL,
            f"{self.serial} is full: {needed / 2**20:.0f} MiB are needed, "
            f"{free / 2**20:.0f} MiB are free",
            "Free some space on the phone, then go on with --resume.",
        )

    def _copy(self, *arguments: str, size: int) -> None:
        limit = self._answer + size / 2**20
        try:
            done = self._run(*arguments, timeout=limit)
        except subprocess.TimeoutExpired:
            raise self._silent(limit) from None
        if done.returncode == 0:
            return
        if _FULL in done.stderr + done.stdout:
            raise DeviceError(
                ErrorKind.DEVICE_FULL,
                f"{self.serial} is full: {arguments[-1]} could not be written",
                "Free some space on the phone, then go on with --resume.",
            )
        raise self._lost(done.stderr)

    def _run(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return run_text([self._program, "-s", self.serial, *arguments], timeout)

    def _silent(self, seconds: float) -> DeviceError:
        return DeviceError(
            ErrorKind.DEVICE_LOST, f"{self.serial} did not answer for {seconds:.0f} s", RESUME
        )

    def _lost(self, words: str) -> DeviceError:
        """Find out what became of the phone, by waiting for it for a while."""
        reason = last_line(words)
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            boot = self._boot_id()
            if boot is not None:
                what = "broke; it answers again" if boot == self._boot else "broke: it rebooted"
                return DeviceError(
                    ErrorKind.DEVICE_LOST, f"the connection to {self.serial} {what}", RESUME
                )
            time.sleep(min(1.0, self._patience / 10))
        return DeviceError(
            ErrorKind.DEVICE_LOST,
            f"{self.serial} is gone: unplugged, switched off, or debugging was switched off"
            + (f" ({reason})" if reason else ""),
            RESUME,
        )

    def _boot_id(self) -> str | None:
        command = f"cat {_BOOT_ID} && echo {_END}"
        try:
            done = self._run("shell", command, timeout=min(10.0, self._patience))
        except subprocess.TimeoutExpired:
            return None
        text, found, _ = done.stdout.rpartition(_END)
        return text.strip() if found else None


def choose_serial(asked: str | None) -> str:
    """The serial that was asked for, or that of the only phone.

    Raises:
        DeviceError: that phone is not there or not ready, or there is none.
        UsageError: several are there and none was named; or adb is missing.
    """
    listing = run_text([find_adb(), "devices"], timeout=30).stdout
    found = dict(re.findall(r"^(\S+)\t(\S+)", listing, re.MULTILINE))
    names = ", ".join(found) or "none"
    if asked is None:
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} phones are connected: {names}", "Name one: android:SERIAL."
            )
        asked = next(iter(found), None)
    if asked is None:
        raise DeviceError(
            ErrorKind.DEVICE_LOST,
            "adb sees no phone",
            "Connect one with USB debugging switched on.",
        )
    if asked not in found:
        raise DeviceError(
            ErrorKind.DEVICE_LOST, f"adb sees no phone {asked!r}", f"Connected: {names}."
        )
    if found[asked] != "device":
        why = _STATES.get(found[asked], f"its state is {found[asked]!r}")
        raise DeviceError(ErrorKind.DEVICE_LOST, f"{asked} is not ready: {why}")
    return asked


def find_adb() -> str:
    """The adb program.

    Raises:
        UsageError: it is not installed.
    """
    program = shutil.which("adb")
    if program is None:
        raise UsageError(
            "adb is not installed", "apt-get install adb, or Android's platform-tools."
        )
    return program


def last_line(text: str) -> str:
    """The last line that says anything, printable characters alone."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(c for c in (lines[-1] if lines else "") if c.isprintable()).strip()[:200]


def quote(*words: str) -> str:
    """Words as the phone's shell takes them apart again."""
    return " ".join(shlex.quote(word) for word in words)

"""An iPhone through devicectl and an app that measures as the C++ runner does. Not run here.

The app is given a job in its Documents folder and writes the runner's JSON lines there, so that
none is lost when it is killed; docs/ios-bench.md has what it reads and writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from onekv.bench.devices.base import DeviceError, Ending, Job
from onekv.bench.devices.devicectl import Devicectl, jetsam_reason, signal_of
from onekv.bench.records import DeviceInfo, DeviceKind, DeviceState, ErrorKind, Failure
from onekv.errors import UsageError
from onekv.export.bundle import Bundle
from onekv.export.manifest import NAME

APP = "ONEKV_IOS_APP"
"""Names the bundle identifier of the app that measures, signed by its user."""

FOLDER = "Documents/onekv"
# How devicectl and the system name a file that is not there.
_MISSING = ("file node", "no such file", "exist")
_MARKER, _OUTPUT = "complete.txt", "output.jsonl"


class IOSDevice:
    """Implements `Device`."""

    def __init__(self, control: Devicectl, app: str | None = None) -> None:
        self._control = control
        self._app = app or os.environ.get(APP, "")
        if not self._app:
            raise UsageError(
                f"{APP} does not name the app that measures",
                "Build and install it as docs/ios-bench.md says, then set its bundle identifier.",
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="onekv-ios-")

    def close(self) -> None:
        """Remove what was written on this machine."""
        self._scratch.cleanup()

    def describe(self) -> DeviceInfo:
        """What devicectl says of the iPhone."""
        found = self._control.ask("info", "details")
        hardware, system = found.get("hardwareProperties", {}), found.get("deviceProperties", {})
        version = system.get("osVersionNumber")
        return DeviceInfo(
            kind=DeviceKind.IOS,
            id=self._control.udid,
            manufacturer="Apple",
            model=_text(hardware.get("marketingName") or hardware.get("productType")),
            system=f"iOS {_text(version)}" if version else None,
            build=_text(system.get("osBuildUpdate")),
            cpu=_text(hardware.get("productType")),
        )

    def state(self) -> DeviceState:
        """What the app said of the iPhone in its last run: devicectl tells neither."""
        for line in reversed(self.pull().splitlines()):
            try:
                content = json.loads(line)
                if content.pop("event") == "state":
                    return DeviceState.model_validate(content)
            except (ValueError, KeyError, AttributeError, TypeError, ValidationError):
                continue
        return DeviceState()

    def push(self, bundle: Bundle) -> None:
        """Copy the bundle's folder into the app's documents, unless all of it is there."""
        remote = f"{FOLDER}/{_name(bundle)}"
        if self._read(f"{remote}/{_MARKER}") == _name(bundle):
            return
        size = sum(file.bytes for file in bundle.manifest.files)
        self._copy_to(bundle.path, remote, timeout=120 + size / 2**20)
        self._write(f"{remote}/{_MARKER}", _name(bundle))

    def run(self, job: Job) -> Ending:
        """Launch the app on a job, attached to its console until it ends."""
        # What an earlier job told must not be taken for this one's.
        self._write(f"{FOLDER}/{_OUTPUT}", "")
        self._write(f"{FOLDER}/job.json", json.dumps(_job(job)))
        begun = time.time()
        try:
            console = self._control.console(
                self._app, "--onekv-job", f"{FOLDER}/job.json", timeout=job.timeout
            )
        except TimeoutError:
            message = f"still running after {job.timeout} s"
            return Ending(None, Failure(kind=ErrorKind.TIMEOUT, message=message))
        number = signal_of(console)
        if number is None:
            return Ending(0)
        return Ending(128 + number, self._death(number, begun))

    def pull(self) -> str:
        """The app's JSON lines of the last run."""
        return self._read(f"{FOLDER}/{_OUTPUT}") or ""

    def stream_read(self, threads: int | None) -> float | None:
        """Not measured: an app is needed for it."""
        return None

    def _death(self, number: int, begun: float) -> Failure:
        """SIGKILL is jetsam's when a report of the system says so."""
        reason = self._jetsam(begun) if number == signal.SIGKILL else None
        if reason is not None:
            return Failure(kind=ErrorKind.OUT_OF_MEMORY, message=f"jetsam: {reason}")
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return Failure(kind=ErrorKind.CRASH, message=f"killed by {name}")

    def _jetsam(self, begun: float) -> str | None:
        folder = Path(self._scratch.name) / "reports"
        folder.mkdir(exist_ok=True)
        where = ("copy", "from", "--domain-type", "systemCrashLogs")
        try:
            self._control.ask(*where, "--source", ".", "--destination", str(folder))
        except DeviceError:
            return None
        reports = [p for p in folder.rglob("JetsamEvent-*.ips") if p.stat().st_mtime >= begun - 1]
        process = self._app.rsplit(".", 1)[-1]
        for report in sorted(reports, key=lambda path: path.stat().st_mtime, reverse=True):
            reason = jetsam_reason(report.read_text(errors="replace"), process)
            if reason is not None:
                return reason
        return None

    def _read(self, remote: str) -> str | None:
        """A file of the app; None when there is none."""
        local = Path(self._scratch.name) / "read"
        local.unlink(missing_ok=True)
        try:
            self._control.ask(
                "copy", "from", *self._container, "--source", remote, "--destination", str(local)
            )
        except DeviceError as error:
            lost = error.kind is ErrorKind.DEVICE_LOST
            if lost and any(words in error.message.lower() for words in _MISSING):
                return None
            raise
        return local.read_text(errors="replace") if local.is_file() else None

    def _write(self, remote: str, text: str) -> None:
        local = Path(self._scratch.name) / "write"
        local.write_text(text)
        self._copy_to(local, remote, timeout=120)

    def _copy_to(self, local: Path, remote: str, timeout: float) -> None:
        places = ("--source", str(local), "--destination", remote)
        self._control.ask("copy", "to", *self._container, *places, timeout=timeout)

    @property
    def _container(self) -> tuple[str, ...]:
        return ("--domain-type", "appDataContainer", "--domain-identifier", self._app)


def _job(job: Job) -> Mapping[str, Any]:
    """What the app reads: the runner's options, under the same names."""
    return {
        "bundle": f"{FOLDER}/{_name(job.bundle)}",
        "entry": job.bundle.manifest.entry,
        "context": job.bundle.manifest.options.context,
        "output": f"{FOLDER}/{_OUTPUT}",
        "depth": job.options.depth,
        "decode": job.options.decode_tokens,
        "threads": job.options.threads,
        "sample_ms": job.options.sampling_ms or 0,
        "prompt": job.prompt,
        "check": job.check,
        "check_prompt": job.check_prompt,
    }


def _name(bundle: Bundle) -> str:
    return hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest()[:16]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

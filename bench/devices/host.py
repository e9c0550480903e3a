"""This machine, through the C++ runner: no Python is in the figures."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

from onekv.bench.devices.base import Ending, Job, Places, runner_command, token_file
from onekv.bench.records import DeviceInfo, DeviceKind, DeviceState, ErrorKind, Failure
from onekv.export.bundle import Bundle
from onekv.export.options import Ops, Target
from onekv.runtime import native
from onekv.runtime.runner_build import build_runner, onnx_runtime_library

_CPU = Path("/sys/devices/system/cpu")
_POWER = Path("/sys/class/power_supply")
_THERMAL = Path("/sys/class/thermal")


class HostDevice:
    """Implements `Device`. The runner is built on first use; close it to remove its scratch."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="onekv-bench-")
        self._folder = Path(self._scratch.name)
        self._runners: dict[Target, Path] = {}

    def close(self) -> None:
        """Remove what was written."""
        self._scratch.cleanup()

    def describe(self) -> DeviceInfo:
        """This machine as Linux tells it."""
        return self._info

    @cached_property
    def _info(self) -> DeviceInfo:
        return DeviceInfo(
            kind=DeviceKind.HOST,
            id="host",
            model=_read(Path("/sys/class/dmi/id/product_name")),
            system=f"{platform.system()} {platform.release()}",
            build=_field(Path("/etc/os-release"), "PRETTY_NAME=", '"'),
            cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory=_kibibytes("MemTotal"),
        )

    def state(self) -> DeviceState:
        """Governor, hottest sensor and battery, where this machine has them."""
        degrees = [int(t) / 1000 for t in map(_read, _THERMAL.glob("thermal_zone*/temp")) if t]
        batteries = [_read(path) for path in _POWER.glob("BAT*/capacity")]
        status = [_read(path) for path in _POWER.glob("BAT*/status")]
        return DeviceState(
            governor=_read(_CPU / "cpu0/cpufreq/scaling_governor"),
            temperature=max(degrees, default=None),
            battery=int(batteries[0]) if batteries and batteries[0] else None,
            charging=status[0] == "Charging" if status and status[0] else None,
            memory_available=_kibibytes("MemAvailable"),
        )

    def push(self, bundle: Bundle) -> None:
        """Build the bundle's runner, unless it was built before."""
        target = bundle.manifest.options.target
        if target not in self._runners:
            self._runners[target] = build_runner(target)

    def run(self, job: Job) -> Ending:
        """Run in a process of its own; its output goes to a file, so that none is lost."""
        places = self._places(job)
        kills = _oom_kills()
        with self._output.open("w") as output, self._errors.open("w") as errors:
            process = subprocess.Popen(
                runner_command(job, places), stdout=output, stderr=errors, stdin=subprocess.DEVNULL
            )
            try:
                code = process.wait(job.timeout)
            except subprocess.TimeoutExpired:
                return Ending(
                    None,
                    Failure(kind=ErrorKind.TIMEOUT, message=f"still running after {job.timeout} s"),
                )
            finally:
                process.kill()
                process.wait()
        return Ending(code, self._death(code, kills))

    def pull(self) -> str:
        """The standard output of the last run; nothing before the first."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def stream_read(self, threads: int | None) -> float | None:
        """Ask any of the runners that are in place."""
        runner = next(iter(self._runners.values()), None)
        if runner is None:
            return None
        command = [str(runner), "--bandwidth", "--threads", str(threads or 0)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rate: float | None = json.loads(done.stdout)["stream_read_gb_s"] if done.stdout else None
        return rate

    @property
    def _output(self) -> Path:
        return self._folder / "output.jsonl"

    @property
    def _errors(self) -> Path:
        return self._folder / "errors.txt"

    def _places(self, job: Job) -> Places:
        prompt, check = self._folder / "prompt.txt", self._folder / "check.txt"
        prompt.write_text(token_file(job.prompt))
        check.write_text(token_file(job.check))
        target = job.bundle.manifest.options.target
        return Places(
            runner=self._runners[target],
            model=job.bundle.entry,
            prompt=prompt,
            check=check,
            runtime=onnx_runtime_library() if target is Target.ONNX else None,
            operators=_operators(job.bundle),
        )

    def _death(self, code: int, kills: int) -> Failure | None:
        if code >= 0:
            return None
        if code == -signal.SIGKILL and _oom_kills() > kills:
            return Failure(
                kind=ErrorKind.OUT_OF_MEMORY, message="Linux killed the process: out of memory"
            )
        last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
        name = signal.Signals(-code).name
        return Failure(kind=ErrorKind.CRASH, message=" ".join([f"killed by {name}", *last]))


def _operators(bundle: Bundle) -> tuple[Path, ...]:
    """The library with onekv's operator, unless the bundle is to do without."""
    options = bundle.manifest.options
    if options.ops is Ops.STOCK:
        return ()
    if options.target is Target.EXECUTORCH:
        from onekv.runtime import executorch_library

        return (executorch_library.build(),)
    library = native.find_library(native.ONNX)
    return () if library is None else (library,)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _field(path: Path, name: str, strip: str = "") -> str | None:
    for line in (_read(path) or "").splitlines():
        if line.startswith(name):
            return line.removeprefix(name).lstrip("\t :").strip(strip)
    return None


def _kibibytes(name: str) -> int | None:
    text = _field(Path("/proc/meminfo"), name)
    return int(text.split()[0]) * 1024 if text else None


def _oom_kills() -> int:
    """Processes that Linux killed for want of memory since it started."""
    return int(_field(Path("/proc/vmstat"), "oom_kill ") or 0)

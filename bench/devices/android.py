"""A phone over adb, through the same C++ runner as on the host."""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from onekv.bench.devices import android_facts as facts
from onekv.bench.devices import android_gpu as gpu
from onekv.bench.devices.adb import Adb, last_line, quote
from onekv.bench.devices.base import (
    DeviceError,
    Ending,
    Job,
    Places,
    runner_command,
    token_file,
)
from onekv.bench.records import DeviceInfo, DeviceState, ErrorKind, Failure
from onekv.export.bundle import Bundle, file_hash

FOLDER = PurePosixPath("/data/local/tmp/onekv")
"""Where a shell may write and run programs; nothing of it is left to other apps."""

# What an iteration writes: its output and a few token ids.
_ROOM = 8 * 2**20
_MOST_OUTPUT = 64 * 2**20


@dataclass(frozen=True)
class Programs:
    """What a phone needs to run a bundle, built for it.

    runtime: libonnxruntime, for ONNX bundles. operators: libraries with onekv's operator.
    libraries: others that these load, such as libc++_shared.so.
    """

    runner: Path
    runtime: Path | None = None
    operators: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file."""
        runtime = () if self.runtime is None else (self.runtime,)
        return (self.runner, *runtime, *self.operators, *self.libraries)


class AndroidDevice:
    """Implements `Device`. Files lie under `FOLDER`, named by what is in them."""

    def __init__(self, adb: Adb, programs: Callable[[Bundle], Programs]) -> None:
        self._adb, self._find_programs = adb, programs
        self._programs: dict[Path, Programs] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="onekv-android-")

    def close(self) -> None:
        """Remove what was written on this machine; the phone keeps its files for the next time."""
        self._scratch.cleanup()

    def describe(self) -> DeviceInfo:
        """What the phone says of itself."""
        return facts.parse_info(self._adb.serial, self._adb.shell(facts.info_script()).out)

    def state(self) -> DeviceState:
        """Governor, thermal state, battery and screen by the phone's own services."""
        return facts.parse_state(self._adb.shell(facts.state_script()).out)

    def push(self, bundle: Bundle) -> None:
        """Copy what is not there yet, and check what arrived by its hash."""
        programs = self._programs.setdefault(bundle.path, self._find_programs(bundle))
        wanted = {self._library(path): (path, file_hash(path)) for path in programs.all}
        for file in bundle.manifest.files:
            wanted[self._model_folder(bundle) / file.name] = (bundle.path / file.name, file.sha256)
        there = self._hashes(wanted)
        missing = {at: what for at, what in wanted.items() if there.get(at) != what[1]}
        self._check_room(sum(path.stat().st_size for path, _ in missing.values()) + _ROOM)
        for at, (path, sha256) in missing.items():
            self._put(path, at, sha256)

    def run(self, job: Job) -> Ending:
        """Run in the phone's shell, its output in a file there, so that none is lost."""
        places = self._places(job)
        self._write(places.prompt, token_file(job.prompt))
        self._write(places.check, token_file(job.check))
        kills = self._oom_kills()
        command = (
            f"cd {quote(str(FOLDER))} && rm -f output.jsonl errors.txt {gpu.FILES} && "
            "echo $$ > pid\n"
            f"LD_LIBRARY_PATH={quote(str(FOLDER / 'bin'))} exec "
            f"{quote(*runner_command(job, places))} > output.jsonl 2> errors.txt < /dev/null"
        )
        try:
            code = self._adb.shell(f"sh -c {quote(command)}", job.timeout).code
        except TimeoutError:
            self._adb.shell(f"kill -9 $(cat {quote(str(FOLDER / 'pid'))})")
            message = f"still running after {job.timeout} s"
            return Ending(None, Failure(kind=ErrorKind.TIMEOUT, message=message))
        return Ending(code, self._death(code, kills))

    def pull(self) -> str:
        """The standard output of the last run, as it is on the phone."""
        remote, local = str(FOLDER / "output.jsonl"), Path(self._scratch.name) / "output.jsonl"
        found = self._adb.shell(f"wc -c < {quote(remote)} && sha256sum {quote(remote)}")
        if found.code:
            return ""
        size, sha256, *_ = found.out.split()
        if int(size) > _MOST_OUTPUT:
            raise DeviceError(ErrorKind.CORRUPT_FILE, f"{remote} has {size} bytes, too many")
        self._adb.pull(remote, local, int(size))
        data = local.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._corrupt(remote)
        return gpu.add_gpu(data.decode(errors="replace"), self._gpu())

    def stream_read(self, threads: int | None) -> float | None:
        """Ask any of the runners that are in place."""
        programs = next(iter(self._programs.values()), None)
        if programs is None:
            return None
        runner = str(self._library(programs.runner))
        folder = quote(str(FOLDER / "bin"))
        words = quote(runner, "--bandwidth", "--threads", str(threads or 0))
        done = self._adb.shell(f"LD_LIBRARY_PATH={folder} {words} 2>/dev/null")
        try:
            rate = json.loads(done.out)["stream_read_gb_s"]
        except (ValueError, KeyError, TypeError):
            return None
        return rate if isinstance(rate, float) and rate > 0 else None

    def _gpu(self) -> dict[str, int]:
        try:
            return gpu.parse(self._adb.shell(gpu.read_script(FOLDER)).out)
        except DeviceError:
            # What was pulled is kept; the next call says that the phone is gone.
            return {}

    def _places(self, job: Job) -> Places:
        programs = self._programs[job.bundle.path]
        runtime = programs.runtime
        uses_gpu = job.bundle.manifest.options.profile in gpu.USERS
        return Places(
            runner=self._library(programs.runner),
            model=self._model_folder(job.bundle) / job.bundle.manifest.entry,
            prompt=FOLDER / "prompt.txt",
            check=FOLDER / "check.txt",
            runtime=None if runtime is None else self._library(runtime),
            operators=tuple(self._library(path) for path in programs.operators),
            at_phase_end=gpu.COMMAND if uses_gpu else None,
        )

    def _library(self, path: Path) -> PurePosixPath:
        return FOLDER / "bin" / path.name

    def _model_folder(self, bundle: Bundle) -> PurePosixPath:
        files = "".join(file.sha256 for file in bundle.manifest.files)
        return FOLDER / hashlib.sha256(files.encode()).hexdigest()[:16]

    def _hashes(self, wanted: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
        """SHA-256 of those files that are there."""
        by_name = {str(path.relative_to(FOLDER)): path for path in wanted}
        home = quote(str(FOLDER))
        script = f"mkdir -p {home} && cd {home} && sha256sum {quote(*by_name)} 2>/dev/null"
        lines = self._adb.shell(script, timeout=600).out.splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2]
        return {by_name[name]: sha256 for sha256, name in pairs if name in by_name}

    def _check_room(self, needed: int) -> None:
        free = self._free()
        if free is not None and free < needed:
            raise self._adb.full(needed, free)

    def _free(self) -> int | None:
        lines = self._adb.shell(f"df -k {quote(str(FOLDER.parent))}").out.strip().splitlines()
        fields = lines[-1].split() if lines else []
        return int(fields[3]) * 1024 if len(fields) > 3 and fields[3].isdecimal() else None

    def _put(self, path: Path, at: PurePosixPath, sha256: str) -> None:
        """Under another name first, so that a broken copy is never taken for the file."""
        partial = at.with_name(at.name + ".part")
        self._adb.shell(f"mkdir -p {quote(str(at.parent))}")
        self._adb.push(path, str(partial))
        if self._hashes([partial]).get(partial) != sha256:
            raise self._corrupt(at.name)
        mode = " && chmod 755 " + quote(str(at)) if at.parent == FOLDER / "bin" else ""
        done = self._adb.shell(f"mv {quote(str(partial), str(at))}{mode}")
        if done.code:
            raise DeviceError(
                ErrorKind.DEVICE_FULL, f"{self._adb.serial} does not let {at} be written"
            )

    def _write(self, at: PurePath, text: str) -> None:
        local = Path(self._scratch.name) / at.name
        local.write_text(text)
        self._adb.push(local, str(at))

    def _corrupt(self, name: str) -> DeviceError:
        return DeviceError(
            ErrorKind.CORRUPT_FILE,
            f"{name} was changed between {self._adb.serial} and this machine",
            "Try another cable or port, then go on with --resume.",
        )

    def _oom_kills(self) -> int:
        text = self._adb.shell("grep '^oom_kill ' /proc/vmstat").out.split()
        return int(text[1]) if len(text) == 2 and text[1].isdecimal() else 0

    def _death(self, code: int, kills: int) -> Failure | None:
        """Why the runner died of a signal; it tells everything else by itself."""
        if code <= 128:
            return self._out_of_room(code)
        pid = self._pid()
        log = self._adb.shell("logcat -d -b all -t 4000 2>/dev/null").out
        killed = None if pid is None else facts.kill_line(log, pid)
        if code == 128 + signal.SIGKILL and (killed or self._oom_kills() > kills):
            why = killed or "the kernel killed it: out of memory"
            return Failure(kind=ErrorKind.OUT_OF_MEMORY, message=why)
        crash = None if pid is None else facts.crash_line(log, pid)
        last = crash or last_line(self._adb.shell(f"cat {quote(str(FOLDER / 'errors.txt'))}").out)
        message = f"killed by {_signal_name(code - 128)}" + (f": {last}" if last else "")
        return Failure(kind=ErrorKind.CRASH, message=message)

    def _out_of_room(self, code: int) -> Failure | None:
        free = self._free() if code else None
        if free is None or free >= 2**20:
            return None
        return Failure(kind=ErrorKind.DEVICE_FULL, message=f"{free} bytes are free on the phone")

    def _pid(self) -> int | None:
        text = self._adb.shell(f"cat {quote(str(FOLDER / 'pid'))}").out.strip()
        return int(text) if text.isdecimal() else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

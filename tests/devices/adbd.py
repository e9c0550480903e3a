"""A small adb daemon on loopback: a phone for tests, to which the real adb client connects.

Its files lie below a folder of the host, its commands run in the host's shell with that folder in
place of /data/local/tmp, and what only a phone knows (getprop, dumpsys, logcat) comes from
recordings. It can be told to fail at a given point.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.devices.adb_services import serve
from tests.devices.adb_streams import Connection, Stream
from tests.devices.adb_wire import GoneError
from tests.devices.faults import Act, Fault

HOME = "/data/local/tmp"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_QEMU = "qemu-aarch64 -cpu cortex-a76 -L /usr/aarch64-linux-gnu"
# ONNX Runtime takes the host's processor, which it reads of there, for an error.
_AS_ARM = 'unshare -rm sh -c \'mount --bind "{}" /proc/cpuinfo && exec {} "$@"\' sh'
_AARCH64 = 183


@dataclass(frozen=True)
class Recordings:
    """What the phone says of itself: properties, and the output of `dumpsys SERVICE`.

    files: contents of absolute paths that stand in for the host's own, such as /proc/meminfo.
    """

    properties: Mapping[str, str] = field(default_factory=dict)
    dumpsys: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class Phone:
    """A daemon on a port of 127.0.0.1, running until it is closed. Thread-safe."""

    def __init__(self, folder: Path, recordings: Recordings, shell_v2: bool = True) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self._folder, self._shell_v2 = folder, shell_v2
        self._recordings = recordings
        self._home = folder / "tmp"
        self._log = folder / "log.txt"
        self._files: dict[str, Path] = {}
        self._connections: set[socket.socket] = set()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._boots = 0
        self._stalled = threading.Event()
        self._prepare()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, with everything that runs on it."""
        # A thread that waits in accept() keeps a closed socket listening.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._disconnect()
        self._kill_all()

    def path(self, remote: str) -> Path:
        """Where a path of the phone lies on the host."""
        if remote in self._files:
            return self._files[remote]
        clean = os.path.normpath(remote)
        if clean != HOME and not clean.startswith(HOME + "/"):
            return self._folder / "nowhere"
        return self._home / clean[len(HOME) :].lstrip("/")

    def say(self, line: str) -> None:
        """Append a line to the log that logcat shows."""
        with self._log.open("a") as log:
            log.write(line + "\n")

    def hit(self, service: str, text: str) -> Fault | None:
        """The fault that strikes this request."""
        self.requests.append((service, text))
        return next((f for f in self.faults if f.strikes(service, text)), None)

    def happen(self, act: Act) -> None:
        """Let the connection go in the way of `act`; does not return when it stalls."""
        if act is Act.STALL:
            self._stalled.wait()
        if act is Act.REBOOT:
            self._boots += 1
            self._write_boot_id()
            self._kill_all()
        if act is Act.VANISH:
            self.close()
        self._disconnect()
        raise GoneError

    def command(self, text: str) -> str:
        """A command of the phone as the host's shell runs it."""
        for remote, local in self._files.items():
            text = text.replace(remote, str(local))
        text = re.sub(rf"{re.escape(HOME)}\b", str(self._home), text)
        # A program stands after what is set for it; elsewhere its name is only an argument.
        for start, word in re.findall(r"(\w+=\S+ (?:exec )?)(/[\w./+-]+)", text):
            if _is_arm_program(Path(word)):
                text = text.replace(start + word, f"{start}emulate {word}")
        return text

    def start(self, text: str) -> subprocess.Popen[bytes]:
        """Run a command, its output in pipes, as the leader of a process group."""
        search = f"{self._folder / 'bin'}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["sh", "-c", self.command(text)],
            cwd=self._home,
            env=os.environ | {"PATH": search},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.add(process)
        return process

    @property
    def _banner(self) -> bytes:
        """What the phone says of itself when a client connects."""
        told = self._recordings.properties
        parts = [
            f"{key}={told.get(key, 'test')}" for key in ("ro.product.name", "ro.product.model")
        ]
        if self._shell_v2:
            parts.append("features=shell_v2")
        return f"device::{';'.join(parts)};\0".encode()

    def _serve(self, stream: Stream, service: str) -> None:
        serve(self, stream, service)

    def _prepare(self) -> None:
        self._home.mkdir(parents=True)
        self._log.touch()
        for number, (remote, content) in enumerate(self._recordings.files.items()):
            self._files[remote] = self._folder / f"file{number}"
            self._files[remote].write_text(content)
        self._files[_BOOT_ID] = self._folder / "boot_id"
        self._write_boot_id()
        programs = self._folder / "bin"
        programs.mkdir()
        self._program("getprop", self._recordings.properties, "")
        self._program("dumpsys", self._recordings.dumpsys, "")
        _write_program(programs / "logcat", f"cat '{self._log}'")
        told = self._files.get("/proc/cpuinfo")
        emulator = _QEMU if told is None else _AS_ARM.format(told, _QEMU)
        _write_program(programs / "emulate", f'exec {emulator} "$@"')

    def _program(self, name: str, answers: Mapping[str, str], missing: str) -> None:
        folder = self._folder / name
        folder.mkdir()
        for key, answer in answers.items():
            (folder / key).write_text(answer + "\n")
        _write_program(
            self._folder / "bin" / name,
            f"cat '{folder}'/\"$1\" 2>/dev/null || echo '{missing}'",
        )

    def _write_boot_id(self) -> None:
        self._files[_BOOT_ID].write_text(f"00000000-0000-0000-0000-{self._boots:012}\n")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            client = Connection(connection, self._banner, self._serve)
            threading.Thread(target=client.serve, daemon=True).start()

    def _disconnect(self) -> None:
        for connection in list(self._connections):
            self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _kill_all(self) -> None:
        for process in list(self._processes):
            self._processes.discard(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _is_arm_program(path: Path) -> bool:
    """Whether a host without ARM needs an emulator for it: an executable that is no library."""
    if (
        not path.is_file()
        or not path.stat().st_mode & stat.S_IXUSR
        or shutil.which(_QEMU.split()[0]) is None
    ):
        return False
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"\x7fELF") or int.from_bytes(head[18:20], "little") != _AARCH64:
        return False
    return b".so" not in path.name.encode()

"""What a phone does with a stream: the shell, and the transfer of files."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.devices import adb_wire as wire
from tests.devices.adb_streams import Stream
from tests.devices.faults import Act, Fault

if TYPE_CHECKING:
    from tests.devices.adbd import Phone


def serve(phone: Phone, stream: Stream, service: str) -> None:
    """Serve one stream to its end."""
    name, _, argument = service.partition(":")
    if name == "sync":
        stream.accept()
        _sync(phone, stream)
    elif name.split(",")[0] in ("shell", "exec"):
        stream.accept()
        _shell(phone, stream, argument, packets=",v2" in name)


def _shell(phone: Phone, stream: Stream, command: str, packets: bool) -> None:
    fault = phone.hit("shell", command)
    process = phone.start(command)
    if fault is not None:
        _strike(phone, process, fault)
    assert process.stdout is not None and process.stderr is not None
    pipes = ((wire.STDOUT, process.stdout), (wire.STDERR, process.stderr))
    for kind, pipe in pipes:
        # One after the other: what the tests run writes far less than a pipe holds to stderr.
        while piece := os.read(pipe.fileno(), 16384):
            stream.write(wire.shell_packet(kind, piece) if packets else piece)
    code = process.wait()
    if packets:
        stream.write(wire.shell_packet(wire.EXIT, bytes([code if code >= 0 else 128 - code])))


def _strike(phone: Phone, process: subprocess.Popen[bytes], fault: Fault) -> None:
    time.sleep(fault.after)
    if fault.act not in (Act.KILL, Act.CRASH):
        phone.happen(fault.act)
    victim = _youngest(process.pid)
    if fault.act is Act.KILL:
        phone.say(
            f"08-13 16:02:51.628  628  628 I lmkd    : Reclaim 'onekv-runner' ({victim}), uid 2000,"
            " oom_score_adj 0, state 2 to free 14800kB rss, 377076kB swap; reason: low watermark"
        )
    os.kill(victim, signal.SIGKILL if fault.act is Act.KILL else signal.SIGSEGV)


def _youngest(pid: int) -> int:
    """The last descendant of a process: what its shell runs."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[-1])
    return pid


def _sync(phone: Phone, stream: Stream) -> None:
    while True:
        request, length = struct.unpack("<4sI", stream.read(8))
        argument = stream.read(length).decode(errors="replace") if request != b"QUIT" else ""
        if request == b"QUIT":
            return
        if request == b"STAT":
            stream.write(wire.sync_stat(*_numbers(phone.path(argument))))
        elif request == b"LIST":
            for entry in _entries(phone.path(argument)):
                stream.write(wire.sync_entry(entry.name.encode(), *_numbers(entry)))
            stream.write(wire.sync_end_of_list())
        elif request == b"SEND":
            _receive(phone, stream, *argument.rsplit(",", 1))
        elif request == b"RECV":
            _give(phone, stream, argument)


def _receive(phone: Phone, stream: Stream, remote: str, mode: str) -> None:
    fault, path, room = phone.hit("push", remote), phone.path(remote), None
    if fault is not None and fault.act is not Act.CORRUPT:
        room = int(fault.after)
    path.parent.mkdir(parents=True, exist_ok=True)
    full = False
    with path.open("wb") as file:
        for piece in _pieces(stream):
            if room is None or len(piece) <= room:
                file.write(piece)
                room = None if room is None else room - len(piece)
                continue
            file.write(piece[:room])
            file.flush()
            room = 0
            assert fault is not None
            if fault.act is not Act.FULL:
                phone.happen(fault.act)
            full = True
    if full:
        stream.write(wire.sync_part(b"FAIL", b"write failed: No space left on device"))
        return
    path.chmod(int(mode) & 0o777)
    if fault is not None and fault.act is Act.CORRUPT:
        _corrupt(path)
    stream.write(wire.sync_part(b"OKAY", b""))


def _pieces(stream: Stream) -> Iterator[bytes]:
    while True:
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind != b"DATA":
            return
        yield stream.read(length)


def _give(phone: Phone, stream: Stream, remote: str) -> None:
    fault, path = phone.hit("pull", remote), phone.path(remote)
    if not path.is_file():
        stream.write(wire.sync_part(b"FAIL", b"open failed: No such file or directory"))
        return
    data = path.read_bytes()
    if fault is not None and fault.act is Act.CORRUPT:
        data = bytes([data[0] ^ 1]) + data[1:]
    elif fault is not None:
        stream.write(wire.sync_part(b"DATA", data[: int(fault.after)]))
        phone.happen(fault.act)
    for start in range(0, len(data), 65536):
        stream.write(wire.sync_part(b"DATA", data[start : start + 65536]))
    stream.write(wire.sync_part(b"DONE", b""))


def _corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _numbers(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)


def _entries(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []

"""Connections of a client and the streams in them, each served by a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from queue import Queue

from tests.devices import adb_wire as wire
from tests.devices.adb_wire import GoneError, Message

Service = Callable[["Stream", str], None]
"""Serves one stream that a client opened with a name such as `sync:` or `shell,v2:ls`."""


class Connection:
    """One client: it opens streams, each served by a thread of its own."""

    def __init__(self, connection: socket.socket, banner: bytes, service: Service) -> None:
        self._connection, self._banner, self._service = connection, banner, service
        self._streams: dict[int, Stream] = {}
        self._lock = threading.Lock()

    def serve(self) -> None:
        try:
            while True:
                self._take(wire.read_message(self._connection))
        except (GoneError, OSError):
            for stream in self._streams.values():
                stream.incoming.put(None)

    def _serve(self, stream: Stream, name: str) -> None:
        with contextlib.suppress(GoneError, OSError):
            self._service(stream, name)
            stream.close()

    def send(self, message: Message) -> None:
        with self._lock:
            try:
                self._connection.sendall(message.encode())
            except OSError as error:
                raise GoneError from error

    def _take(self, message: Message) -> None:
        if message.command == b"CNXN":
            self.send(Message(b"CNXN", wire.VERSION, wire.MAX_DATA, self._banner))
        elif message.command == b"OPEN":
            stream = Stream(self, local=message.first, remote=message.first)
            self._streams[stream.local] = stream
            name = message.data.rstrip(b"\0").decode(errors="replace")
            threading.Thread(target=self._serve, args=(stream, name), daemon=True).start()
        elif (stream := self._streams.get(message.second)) is not None:
            stream.take(message)


class Stream:
    """A stream of bytes in both directions; each piece that is sent waits for its OKAY."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.local = local
        self.incoming: Queue[bytes | None] = Queue()
        self._connection, self._remote = connection, remote
        self._ready = threading.Semaphore(0)
        self._buffer = b""
        self._open = True

    def take(self, message: Message) -> None:
        if message.command == b"OKAY":
            self._ready.release()
        elif message.command == b"WRTE":
            self.incoming.put(message.data)
            self._reply(b"OKAY")
        elif message.command == b"CLSE":
            self._open = False
            self.incoming.put(None)
            self._ready.release()

    def accept(self) -> None:
        self._reply(b"OKAY")

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), wire.MAX_DATA):
            self._reply(b"WRTE", data[start : start + wire.MAX_DATA])
            self._ready.acquire()
            if not self._open:
                raise GoneError

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            piece = self.incoming.get()
            if piece is None:
                raise GoneError
            self._buffer += piece
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def close(self) -> None:
        self._reply(b"CLSE")

    def _reply(self, command: bytes, data: bytes = b"") -> None:
        self._connection.send(Message(command, self.local, self._remote, data))

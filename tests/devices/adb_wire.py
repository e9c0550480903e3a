"""The wire format of adb as far as a device needs it: messages, shell packets, sync requests.

Written from the protocol's description in AOSP, packages/modules/adb: protocol.txt, SYNC.TXT,
and shell_protocol.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

VERSION = 0x01000000
"""The version in which messages carry a checksum; every client still speaks it."""

MAX_DATA = 256 * 1024
_HEADER = struct.Struct("<4s5I")


class GoneError(Exception):
    """The other side closed the connection, or sent what is no message."""


@dataclass(frozen=True)
class Message:
    """`first` and `second` are the two arguments: the sender's stream id, then the receiver's."""

    command: bytes
    first: int
    second: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Header and data as sent."""
        magic = int.from_bytes(self.command, "little") ^ 0xFFFFFFFF
        return (
            _HEADER.pack(
                self.command,
                self.first,
                self.second,
                len(self.data),
                sum(self.data) & 0xFFFFFFFF,
                magic,
            )
            + self.data
        )


def read_message(connection: socket.socket) -> Message:
    """The next message.

    Raises:
        GoneError: there is none, or its header is not one.
    """
    command, first, second, length, _, magic = _HEADER.unpack(read_exactly(connection, 24))
    if magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF or length > MAX_DATA:
        raise GoneError
    return Message(command, first, second, read_exactly(connection, length))


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """That many bytes.

    Raises:
        GoneError: the connection ends before.
    """
    data = bytearray()
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except OSError as error:
            raise GoneError from error
        if not part:
            raise GoneError
        data += part
    return bytes(data)


STDOUT, STDERR, EXIT = 1, 2, 3


def shell_packet(kind: int, data: bytes) -> bytes:
    """A packet of shell protocol v2."""
    return struct.pack("<BI", kind, len(data)) + data


def sync_stat(mode: int, size: int, time: int) -> bytes:
    """The answer to STAT; zeros for a path that is not there."""
    return b"STAT" + struct.pack("<3I", mode, size, time)


def sync_entry(name: bytes, mode: int, size: int, time: int) -> bytes:
    """One line of the answer to LIST."""
    return b"DENT" + struct.pack("<4I", mode, size, time, len(name)) + name


def sync_end_of_list() -> bytes:
    """The last line of the answer to LIST."""
    return b"DONE" + bytes(16)


def sync_part(kind: bytes, data: bytes) -> bytes:
    """DATA with a piece of a file, FAIL with a reason, OKAY or DONE with nothing."""
    return kind + struct.pack("<I", len(data)) + data

"""What can be made to go wrong on a phone, and when."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Act(enum.Enum):
    """What goes wrong."""

    UNPLUG = "the connection breaks, and the phone can be reached again"
    VANISH = "the connection breaks, and nothing listens any more"
    REBOOT = "as UNPLUG, with a new boot id and every process killed"
    STALL = "nothing is answered any more"
    CORRUPT = "a byte of the file is changed"
    FULL = "no space is left"
    KILL = "the command is killed as the low-memory killer does, with its line in the log"
    CRASH = "the command dies by SIGSEGV"


@dataclass
class Fault:
    """`act` happens to the `count`th request of `service` (push, pull, shell) with `text` in it.

    after: for pushes the bytes that still arrive, for commands the seconds that they still run.
    """

    service: str
    act: Act
    text: str = ""
    count: int = 1
    after: float = 0

    def strikes(self, service: str, text: str) -> bool:
        """Count a request; whether it is the one."""
        if service != self.service or self.text not in text or self.count == 0:
            return False
        self.count -= 1
        return self.count == 0

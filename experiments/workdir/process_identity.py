"""Names one process of one machine, so that another can see whether it still runs."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path

PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A process id with what distinguishes its reuses.

    machine: the boot and the process namespace; "" where the system names neither. Containers of
    one host share its name and have process numbers of their own.
    started: in the kernel's ticks since the boot; "" where the system does not say.
    """

    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> ProcessIdentity:
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()))

    def runs(self) -> bool | None:
        """Tells whether the process exists; None where this machine cannot see it."""
        if (self.host, self.machine) != (socket.gethostname(), _machine()):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user
            pass
        # A zombie has ended: it only waits for its parent.
        return _state(self.pid) != "Z" and _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _fields(pid: int) -> list[str]:
    """Fields 3 and following of proc(5)'s stat; [] where there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # a command's name may hold blanks and brackets


def _state(pid: int) -> str:
    return fields[0] if (fields := _fields(pid)) else ""


def _started(pid: int) -> str:
    return fields[19] if len(fields := _fields(pid)) > 19 else ""

"""The seam between a host and processes: what is started, and what is heard of it.

Production: `paglets.worker.host.launcher` (a zygote that forks). Simulation: `paglets.testing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from paglets.api.slots import Usage

HOST_FILES_MISSING = "host_files_missing"
"""The cause that a process tells which lacked files of its host: nothing of the run counts, and it is due again."""

DISK_FULL = "disk_full"
"""The cause that a process tells which met a full disk of its host. Its host decides what comes of it."""

ALONE = "alone"
"""The argument of a zygote that serves one run, for people who look at processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """A process to start. It does nothing of the user's before a `go` frame. `alone`: in a zygote of its own."""

    token: str
    agent_id: str
    generation: int
    attempt: int
    work_dir: str
    stdout_path: str
    stderr_path: str
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    cores: tuple[int, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """How a process ended, told when its whole tree is gone. `exit_code` or `signal` is set.

    `error`: it could not be started at all; with `launcher_lost`: as the host had no place for it. `launcher_died`: its
    zygote ended or stopped answering under it. `is_culprit`: that zygote served no other process. `stderr_tail`: its
    last lines, 8 KiB at most. `silent`: it printed nothing, so there is no log.
    """

    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    stderr_tail: str = ""
    oom: bool = False
    launcher_lost: bool = False
    launcher_died: bool = False
    is_culprit: bool = False
    silent: bool = False
    usage: Usage = field(default_factory=Usage)


class LaunchEvents(Protocol):
    """Called on any thread, in order for one token: started?, frame*, ended (exactly once)."""

    def started(self, token: str, pid: int, start_time: float) -> None: ...

    def frame(self, token: str, frame: dict[str, Any]) -> None: ...

    def sampled(self, token: str, usage: Usage) -> None: ...

    def ended(self, token: str, ended: ProcessExit) -> None: ...

    def start_blocked(self, text: str) -> None:
        """Why no process can be started just now, "" when that is over; of no token."""
        ...


class Launcher(Protocol):
    """None of these blocks."""

    def start(self, spec: LaunchSpec) -> None: ...

    def send(self, token: str, frame: dict[str, Any]) -> None:
        """A frame to the child; dropped where the child is gone (its `ended` comes)."""
        ...

    def end(self, token: str) -> None:
        """End the process and all its descendants; `ended` follows."""
        ...

    def close(self) -> None:
        """End everything and the zygote."""
        ...

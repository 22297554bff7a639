"""The interface between a host and the processes of its runs: start a process, and get its events.

A host uses `paglets.worker.host.launcher`, whose zygote forks. Tests use `tests.fakes.processes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from paglets.api.slots import Usage

HOST_FILES_MISSING = "host_files_missing"
"""Cause of a run that could not read or write files of its host. The host discards the run and starts it again."""

DISK_FULL = "disk_full"
"""Cause of a run that failed because a disk of its host was full. The host decides if the attempt counts."""

ALONE = "alone"
"""Command-line argument of a zygote that serves one run. It is there for people who read a process list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """A process to start. It runs no user code before it gets a `go` frame. `alone`: fork it from its own zygote."""

    token: str
    agent_id: str
    attempt: int
    work_dir: str
    stdout_path: str
    stderr_path: str
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    cores: tuple[int, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """The end of a process, reported when its whole process tree is gone. `exit_code` or `signal` is set.

    `error`: the process could not be started; with `launcher_lost`: because the host could not make its workspace.
    `launcher_died`: its zygote ended, or stopped answering, while the process ran. `is_culprit`: that zygote served no
    other process. `stderr_tail`: its last lines, at most 8 KiB. `silent`: it printed nothing, so there is no log.
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
    """Callbacks of a launcher, called on any thread. Order for one token: started?, frame*, ended exactly once."""

    def started(self, token: str, pid: int, start_time: float) -> None: ...

    def frame(self, token: str, frame: dict[str, Any]) -> None: ...

    def sampled(self, token: str, usage: Usage) -> None: ...

    def ended(self, token: str, ended: ProcessExit) -> None: ...

    def start_blocked(self, text: str) -> None:
        """Handle the reason why no process can be started now; "" when processes start again."""
        ...


class Launcher(Protocol):
    """An interface to start and end processes. No method blocks."""

    def start(self, spec: LaunchSpec) -> None: ...

    def send(self, token: str, frame: dict[str, Any]) -> None:
        """Send a frame to the child. It is dropped if the child is gone; `ended` follows in that case."""
        ...

    def end(self, token: str) -> None:
        """End the process and all its descendants; `ended` follows."""
        ...

    def close(self) -> None:
        """End all processes and the zygotes."""
        ...

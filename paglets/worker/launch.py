"""The interface between a host and the processes of its runs: how to start a process and receive its events.

A host uses the launcher in `paglets.worker.host.launcher`, which forks processes. Tests use `tests.fakes.processes`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Protocol

from paglets.api.slots import Usage
from paglets.slots.model import Resources
from paglets.worker.protocol import GoCode

HOST_FILES_MISSING = "host_files_missing"
"""Cause of a failed run: its process could not read or write a file of the host. The host then repeats the run."""

DISK_FULL = "disk_full"
"""Cause of a failed run: a disk of the host was full. The host decides whether the failed attempt counts."""

EXIT_HOST_GONE = 121
"""Exit code of a child that has lost the connection to its host, or received a bad frame on it."""

ALONE = "alone"
"""Command-line argument of a zygote that serves a single run. Its only purpose is to show this in process lists."""


HAS_WORKERS = sys.platform == "linux"
"""True if this system has warm workers. On other systems, each attempt has a process of its own."""

IDLE_SECONDS = 5.0
"""Time after which a warm worker without a job ends, and a resident without a message.

A script or a person that calls a paglet again usually does so within a few seconds. After that, the process would only
use memory.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSource:
    """The import of a template: `module` from the bundle `code`. `code_paths`: as in `protocol.Go`.

    A template is a zygote that imports one module of user code, and then forks the runs that need this module.
    """

    module: str
    code: GoCode
    code_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKey:
    """The values that all jobs of one warm worker share: the bundle's SHA-256, the module, and the resources.

    `cores`: the cores to which the worker is bound; empty if it may use all.
    """

    bundle: str
    module: str
    resources: Resources
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """The process to start for a run. It runs no user code before it receives a `go` frame.

    `alone`: True to fork the process from a zygote that serves no other run. `threads`: the number of threads for
    numerical libraries; 0: they decide. `template`: the import of the template from which to fork the process;
    None: fork it from a zygote that has imported no user code. `worker`: the key of the warm worker for the run; None:
    the run has a process of its own. `line`: the name of the queue of runs that share one slot in a warm worker. It is
    the token of the first of these runs; "" if the run is in no such queue. `is_worker`: True if the process is a warm
    worker, which has no logs.
    """

    token: str
    agent_id: str
    attempt: int
    work_dir: str
    stdout_path: str
    stderr_path: str
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    cores: tuple[int, ...] = ()
    alone: bool = False
    threads: int = 0
    template: TemplateSource | None = None
    worker: WorkerKey | None = None
    line: str = ""
    is_worker: bool = False

    @property
    def is_ahead(self) -> bool:
        """Return True if the run has no slot yet: it gets the slot of the run before it in the same worker."""
        return self.line not in ("", self.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """The end of a run, reported when all its processes have ended, except a warm worker that runs further jobs.

    `exit_code` or `signal` is set, unless the run was not started. `error`: the reason why it was not started. `oom`:
    True if the kernel killed it because memory ran out.
    `launcher_lost`: True if the run ended because of its host, its zygote or another job of its worker.
    `launcher_died`: True if its zygote ended or stopped answering. `is_culprit`: True if that zygote served only this
    run. `stderr_tail`: the last lines of stderr, at most 8 KiB. `silent`: True if there is no log, because nothing was
    printed. `no_template`: the reason why the process was not forked from a template that has imported its module;
    "" if it was, or if no template was requested. `in_worker`: True if the run was a job of a warm worker.
    `worker_ended`: the change of its process for which the worker exits, such as "left a thread"; "" if there is none.
    `next_token`: the token of the run that gets the slot of this run in the same worker; "" if there is none.
    `job_seconds`: the time from the start of a job in a warm worker to its end; None for other runs, and for a job that
    did not start.
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
    no_template: str = ""
    in_worker: bool = False
    worker_ended: str = ""
    next_token: str = ""
    job_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)


class TemplateEvents(Protocol):
    """Callbacks for the templates and warm workers of a launcher. They may be called from any thread."""

    def started(self, token: str, pid: int, start_time: float) -> None:
        """Store the process, then call `Launcher.allow_import`. Before that, the process runs no user code."""
        ...

    def ended(self, token: str) -> None:
        """Forget a template or a warm worker whose processes have ended."""
        ...


class LaunchEvents(Protocol):
    """Callbacks of a launcher. They may be called from any thread.

    For each token, `started` comes first and at most once, and `ended` comes last and exactly once.
    """

    @property
    def templates(self) -> TemplateEvents:
        """Return the callbacks for templates and warm workers."""
        ...

    def started(self, token: str, pid: int, start_time: float) -> None: ...

    def frame(self, token: str, frame: dict[str, Any]) -> None: ...

    def sampled(self, token: str, usage: Usage) -> None: ...

    def ended(self, token: str, ended: ProcessExit) -> None: ...

    def start_blocked(self, text: str) -> None:
        """Receive the reason why no process can be started, or "" if processes can be started again."""
        ...


class Launcher(Protocol):
    """An interface to start and end the processes of runs. No method blocks."""

    def start(self, spec: LaunchSpec) -> None: ...

    def send(self, token: str, frame: dict[str, Any]) -> None:
        """Send a frame to the child. If the child has ended, the frame is dropped and the event `ended` follows.

        The frame `go` of a run with a worker may be sent before the event `started`. The launcher keeps it until the
        process of the worker is stored.
        """
        ...

    def end(self, token: str) -> None:
        """End a run and all its processes. The event `ended` follows."""
        ...

    def withdraw(self, token: str) -> None:
        """Take back a run that was sent ahead. If it has not begun, the event `ended` follows; else nothing happens."""
        ...

    def allow_import(self, token: str) -> None:
        """Let a template import its module, or a warm worker run jobs. Called when the host has stored the process."""
        ...

    def end_idle(self) -> None:
        """End the templates and the warm workers that have no runs, because their memory is needed."""
        ...

    def close(self) -> None:
        """Request the end of all processes and zygotes."""
        ...

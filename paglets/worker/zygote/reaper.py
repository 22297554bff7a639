"""The reaper of a zygote: it collects the exit statuses of children, and kills orphans.

The first process of a run leads its own session and is a *subreaper*: it adopts the orphans among its descendants, in
any session. When the first process ends, the zygote, which is also a subreaper, adopts the remaining children. A child
that the zygote did not fork therefore belongs to a run whose first process has ended. The reaper kills the child, and
then the child's children, which the zygote adopts in turn.

For a run that never forked, the reaper reads the list of children once (about 5 us) and scans no other processes.
Processes that another service (at, systemd, docker) starts for a job are not found.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from resource import struct_rusage

from paglets.worker.processes import ProcTable, freeze_and_kill, send_signal, signal_group
from paglets.worker.zygote.output import OutputPipe

MAX_KILLS = 3
"""Number of SIGKILL signals to one orphan, after which its whole process tree is stopped and then killed."""


@dataclass(slots=True, kw_only=True)
class ForkedRun:
    """A run whose first process is alive. `kill_at`: the monotonic time to send SIGKILL; None if not scheduled."""

    token: str
    pid: int
    outputs: tuple[OutputPipe, ...]
    kill_at: float | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the first process of the run and to its process group."""
        # Signal the process itself as well, because it may not lead a process group yet.
        send_signal(self.pid, number)
        signal_group(self.pid, number)


@dataclass(slots=True, kw_only=True)
class EndedRun:
    """A run whose first process has ended. `cpu_seconds`: the CPU time, including the run's orphans."""

    token: str
    outputs: tuple[OutputPipe, ...]
    status: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(slots=True, kw_only=True)
class _Orphan:
    """A child that the zygote did not fork. `token`: its run; "" if unknown. `kills`: how often SIGKILL was sent."""

    token: str
    kills: int = field(default=0)


class Reaper:
    """A reaper for the children of this process. `runs`: the runs whose first process is alive, by pid."""

    def __init__(self, table: ProcTable) -> None:
        self._table = table
        self.runs: dict[int, ForkedRun] = {}
        self._ended: dict[str, EndedRun] = {}
        self._orphans: dict[int, _Orphan] = {}

    @property
    def has_ended_runs(self) -> bool:
        """Return True if a run whose first process has ended still has orphans."""
        return bool(self._ended)

    @property
    def is_done(self) -> bool:
        """Return True if neither a run nor an orphan is left."""
        return not (self.runs or self._ended or self._adopted())

    def reap(self) -> list[EndedRun]:
        """Collect exit statuses and kill orphans. Return the runs that now have no process left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._note_exit(pid, status, usage)
        self._kill_orphans()
        return [self._ended.pop(token) for token in list(self._ended) if not self._has_orphans(token)]

    def _has_orphans(self, token: str) -> bool:
        return any(orphan.token in (token, "") for orphan in self._orphans.values())

    def _note_exit(self, pid: int, status: int, usage: struct_rusage) -> None:
        cpu_seconds = usage.ru_utime + usage.ru_stime
        run = self.runs.pop(pid, None)
        if run is None:
            orphan = self._orphans.pop(pid, None)
            if orphan is not None and orphan.token in self._ended:
                self._ended[orphan.token].cpu_seconds += cpu_seconds
            return
        # The leader of the process group has ended, but the kernel does not reuse its id while the group has members.
        signal_group(pid, signal.SIGKILL)
        unit = 1 if sys.platform == "darwin" else 1024
        self._ended[run.token] = EndedRun(
            token=run.token,
            outputs=run.outputs,
            status=status,
            cpu_seconds=cpu_seconds,
            rss_bytes=usage.ru_maxrss * unit,
        )

    def _adopted(self) -> set[int]:
        """Return the pids of children that the zygote did not fork. Systems without subreapers have none."""
        return self._table.children(os.getpid()) - self.runs.keys() if sys.platform == "linux" else set()

    def _kill_orphans(self) -> None:
        adopted = self._adopted()
        self._orphans = {pid: self._orphans.get(pid) or _Orphan(token=self._table.token(pid)) for pid in adopted}
        stubborn = []
        for pid, orphan in self._orphans.items():
            send_signal(pid, signal.SIGKILL)
            orphan.kills += 1
            if orphan.kills > MAX_KILLS:
                stubborn.append(pid)
        if stubborn:
            freeze_and_kill(self._table, stubborn)

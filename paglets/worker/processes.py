"""The processes of this machine: how to read their resource use, find their descendants, and kill process trees.

A process is identified by pid *and* start time, so that an unrelated process with a reused pid is never killed. A
process of a run also has a marker: the token of the run in its environment (`paglets.worker.linux`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from paglets.worker.linux import RUN_VARIABLE

START_TIME_TOLERANCE_SECONDS = 0.05
"""Maximum difference between two readings of one process's start time, which the kernel counts in ticks of 10 ms.
Start times of different processes with the same pid differ by more."""

SURVIVORS_SECONDS = 10.0
"""Time limit of `kill_survivors`. SIGKILL takes milliseconds, unless the process is blocked in the kernel."""

ZOMBIES = "ZX"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process. `start_time`: in seconds; comparable only until the machine reboots.

    `cpu_seconds`: the CPU time of the process and of its ended children that it has waited for.
    """

    pid: int
    parent: int
    session: int
    state: str
    start_time: float
    cpu_seconds: float
    rss_bytes: int

    @property
    def alive(self) -> bool:
        return self.state not in ZOMBIES


class ProcessTable(Protocol):
    """A table of the processes of this machine. It lacks processes that cannot be read, but may contain zombies."""

    def get(self, pid: int) -> ProcessInfo | None: ...

    def all(self) -> dict[int, ProcessInfo]: ...

    def marked(self) -> dict[int, str]:
        """Return the run token of each process that has one in its environment, by pid."""
        ...


def process_table(psutil: Any = None) -> ProcessTable:
    """Return the table for this platform: from /proc on Linux, else from the module `psutil`, else an empty table."""
    if sys.platform == "linux":
        return ProcTable()
    return PsutilTable(psutil) if psutil is not None else NoTable()


class NoTable:
    """An empty table, for systems with neither /proc nor psutil."""

    def get(self, pid: int) -> ProcessInfo | None:
        return None

    def all(self) -> dict[int, ProcessInfo]:
        return {}

    def marked(self) -> dict[int, str]:
        return {}


class ProcTable:
    """The table for Linux, read from /proc. Reading takes about 8 us per process."""

    def __init__(self) -> None:
        self._tick = 1.0 / os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def get(self, pid: int) -> ProcessInfo | None:
        data = _read(f"/proc/{pid}/stat", 4096)
        if not data:
            return None
        # Field 2, the name in parentheses, may contain spaces and parentheses. Field 3 follows the last parenthesis.
        fields = data[data.rindex(b")") + 2 :].split()
        return ProcessInfo(
            pid=pid,
            state=fields[0].decode(),
            parent=int(fields[1]),
            session=int(fields[3]),
            cpu_seconds=sum(map(int, fields[11:15])) * self._tick,
            start_time=int(fields[19]) * self._tick,
            rss_bytes=int(fields[21]) * self._page,
        )

    def all(self) -> dict[int, ProcessInfo]:
        found = (self.get(pid) for pid in self._pids())
        return {info.pid: info for info in found if info is not None}

    def marked(self) -> dict[int, str]:
        tokens = ((pid, self.token(pid)) for pid in self._pids())
        return {pid: token for pid, token in tokens if token}

    def token(self, pid: int) -> str:
        """Return the run token of a process; "" if it has none, is a zombie, or belongs to another user."""
        name = f"{RUN_VARIABLE}=".encode()
        for entry in _read(f"/proc/{pid}/environ", 1 << 20).split(b"\0"):
            if entry.startswith(name):
                return entry[len(name) :].decode("utf-8", "replace")
        return ""

    def children(self, pid: int) -> set[int]:
        """Return the pids of the direct children, including zombies. The kernel has a list of them for each thread."""
        try:
            return {child for thread in os.listdir(f"/proc/{pid}/task") for child in _children_of(pid, thread)}
        except FileNotFoundError:
            # A kernel that was built without CONFIG_PROC_CHILDREN has no files with these lists.
            return {info.pid for info in self.all().values() if info.parent == pid}
        except ProcessLookupError:
            return set()

    def _pids(self) -> list[int]:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _children_of(pid: int, thread: str) -> list[int]:
    """Return the children of a thread. Raises FileNotFoundError and ProcessLookupError."""
    with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
        return [int(child) for child in file.read().split()]


class PsutilTable:
    """The table for systems other than Linux, read with psutil."""

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil

    def get(self, pid: int) -> ProcessInfo | None:
        try:
            return self._info(self._psutil.Process(pid))
        except self._psutil.Error:
            return None

    def all(self) -> dict[int, ProcessInfo]:
        found = (self.get(pid) for pid in self._psutil.pids())
        return {info.pid: info for info in found if info is not None}

    def marked(self) -> dict[int, str]:
        tokens = ((pid, self._token(pid)) for pid in self._psutil.pids())
        return {pid: token for pid, token in tokens if token}

    def _token(self, pid: int) -> str:
        try:
            return str(self._psutil.Process(pid).environ().get(RUN_VARIABLE, ""))
        except (self._psutil.Error, OSError):
            return ""

    def _info(self, process: Any) -> ProcessInfo:
        with process.oneshot():
            times = process.cpu_times()
            zombie = process.status() == self._psutil.STATUS_ZOMBIE
            return ProcessInfo(
                pid=process.pid,
                parent=process.ppid(),
                session=0,
                state="Z" if zombie else "R",
                start_time=process.create_time(),
                cpu_seconds=times.user + times.system,
                rss_bytes=process.memory_info().rss,
            )


def _read(path: str, most: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def descendants(table: Mapping[int, ProcessInfo], roots: Iterable[int]) -> dict[int, ProcessInfo]:
    """Return the processes `roots` and all their descendants that are in the table, by pid."""
    children: dict[int, list[int]] = {}
    for info in table.values():
        children.setdefault(info.parent, []).append(info.pid)
    found: dict[int, ProcessInfo] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in table and pid not in found:
            found[pid] = table[pid]
            waiting.extend(children.get(pid, ()))
    return found


def same_process(info: ProcessInfo | None, start_time: float) -> bool:
    """Return True if `info` is a live process that was started at `start_time`."""
    return info is not None and info.alive and abs(info.start_time - start_time) <= START_TIME_TOLERANCE_SECONDS


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, unless it has ended or belongs to another user."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group with the id `pid`, if it exists. Its leader may have ended."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def freeze_and_kill(table: ProcessTable, roots: Collection[int]) -> None:
    """Kill the processes `roots` and all their descendants, even if these fork faster than they can be killed.

    First stop all of them: stopped processes cannot fork, but still count against the process limit. When a scan finds
    only stopped processes, kill them.
    """
    stopped: set[int] = set()
    for _ in range(100):
        tree = [pid for pid, info in descendants(table.all(), roots).items() if info.alive]
        if stopped.issuperset(tree):
            break
        for pid in tree:
            if pid not in stopped:
                send_signal(pid, signal.SIGSTOP)
        stopped.update(tree)
    for pid in stopped:
        send_signal(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTree:
    """The known processes of one run.

    `pid` and `start_time`: the identity of the first process; None if unknown. `seen`: the start times of further
    processes, by pid.
    """

    token: str
    pid: int | None
    start_time: float | None
    seen: Mapping[int, float]


def kill_runs(table: ProcessTable, runs: Collection[RunTree]) -> set[str]:
    """Kill all live processes of the runs. Return the tokens of runs that had live processes."""
    everything, marked = table.all(), table.marked()
    alive: set[str] = set()
    roots: set[int] = set()
    for run in runs:
        own = _live_processes(run, everything, marked)
        if own:
            alive.add(run.token)
            roots |= own
    if roots:
        freeze_and_kill(table, roots)
    return alive


def _live_processes(run: RunTree, everything: Mapping[int, ProcessInfo], marked: Mapping[int, str]) -> set[int]:
    known = dict(run.seen)
    if run.pid is not None and run.start_time is not None:
        known[run.pid] = run.start_time
    own = {pid for pid, start in known.items() if same_process(everything.get(pid), start)}
    # A process with the token of another run does not belong to this run, even if pid and start time match.
    own = {pid for pid in own if marked.get(pid, run.token) == run.token}
    return own | {
        pid for pid, token in marked.items() if token == run.token and pid in everything and everything[pid].alive
    }


def kill_survivors(runs: Iterable[tuple[int | None, float | None, str]], psutil: Any = None) -> list[str]:
    """Kill processes that are left from earlier starts of the host, and wait for their end.

    `runs`: pid, start time and token of each run; pid and start time are None if they were not stored. Returns the
    tokens of runs with processes that are still alive after SURVIVORS_SECONDS. Unrelated processes with a reused pid
    are not killed.
    """
    table = process_table(psutil)
    left = [RunTree(token=token, pid=pid, start_time=start, seen={}) for pid, start, token in runs]
    deadline = time.monotonic() + SURVIVORS_SECONDS
    pause = 0.001
    while left and (alive := kill_runs(table, left)):
        left = [run for run in left if run.token in alive]
        if time.monotonic() > deadline:
            return sorted(alive)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return []

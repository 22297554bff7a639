"""Hosts that run on this machine under the same user, found by their run files in `run/`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paglets.codec.strict_json import loads
from paglets.core.errors import BadRequest, Unreachable
from paglets.core.refs import HostRef

NO_HOST = "no host runs on this machine"

START_ONE = ["paglets host --background", "or name a host elsewhere with HostClient(URL) or PAGLETS_AT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningHost:
    """A host of this machine, as its run file `<PAGLETS_HOME>/run/<name>.json` describes it.

    `began`: the start of the host's process, as returned by `start_of`; "" if unknown.
    """

    name: str
    url: str
    store_id: str
    pid: int
    began: str = ""

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id, name=self.name, url=self.url)


def running_hosts(home: Path) -> tuple[RunningHost, ...]:
    """Return the hosts whose process runs, sorted by name. Malformed run files are ignored."""
    found = (read_run_file(path) for path in _run_files(home))
    return tuple(sorted((one for one in found if one is not None and is_running(one)), key=lambda one: one.name))


def broken_run_files(home: Path) -> tuple[str, ...]:
    """Return a text for the user about each malformed run file."""
    broken = (path for path in _run_files(home) if path.exists() and read_run_file(path) is None)
    return tuple(f"ignored {path}: it is no run file; host {path.stem} rewrites it while it runs" for path in broken)


def _run_files(home: Path) -> list[Path]:
    return sorted((home / "run").glob("*.json"))


def local_host(home: Path, name: str | None = None) -> tuple[RunningHost, str]:
    """Return the running host `name` of this machine, by default the first by name, and a message for the user.

    The message names the other running hosts; it is "" if there is no choice. Raises Unreachable if no such host runs.
    """
    running = running_hosts(home)
    named = [one for one in running if name in (None, one.name)]
    if not named:
        raise _not_running(name, running)
    others = [one.name for one in named[1:]]
    note = f"using host {named[0].name}; also running here: {', '.join(others)} (choose with --at or PAGLETS_AT)"
    return named[0], note if others else ""


def _not_running(name: str | None, running: tuple[RunningHost, ...]) -> Unreachable:
    if running:
        return Unreachable(f"no host {name!r} runs on this machine; running here: {names_text(running)}")
    return no_host(f"no host {name!r} runs on this machine" if name else NO_HOST)


def no_host(message: str = NO_HOST) -> Unreachable:
    """Return the error for a machine without a running host, with a hint how to start one."""
    return Unreachable(message, hint=START_ONE)


def names_text(hosts: Iterable[RunningHost]) -> str:
    return ", ".join(host.name for host in hosts)


def read_run_file(path: Path) -> RunningHost | None:
    """Return the host of a run file; None if the file is missing or malformed."""
    try:
        tree = loads(path.read_bytes())
        return RunningHost(
            name=str(tree["name"]),
            url=str(tree["url"]),
            store_id=str(tree["store_id"]),
            pid=int(tree["pid"]),
            began=str(tree.get("began", "")),
        )
    except (OSError, BadRequest, ValueError, KeyError, TypeError):
        return None


def start_of(pid: int) -> str:
    """Return the kernel's boot id and the start of a process, or "" if unknown. It differs if the pid is reused."""
    stat = _stat(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    # Field 22 of /proc/PID/stat: the start of the process, in clock ticks since boot.
    return f"{boot} {stat[19]}" if stat else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; empty if there is no such file."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # The name of the program, in parentheses, may itself have spaces and parentheses.
    return stat[stat.rindex(b")") + 2 :].decode().split()


def is_running(host: RunningHost) -> bool:
    """Return True if the process of the host runs.

    A killed host leaves its run file, and another program may get its pid, which is likely in a restarted container.
    So this function compares the start of the process, too.
    """
    now = start_of(host.pid)
    return _exists(host.pid) and (not host.began or not now or now == host.began)


def _exists(pid: int) -> bool:
    """Return True if a process with that pid runs; always True on Windows, where `os.kill` would end the process."""
    if os.name != "posix":
        return True
    if pid <= 0 or _stat(pid)[:1] == ["Z"]:  # Z is a zombie: it has ended, and its parent has not waited for it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

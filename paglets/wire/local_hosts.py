"""Hosts that run on this machine under the same user, found through the files they keep in `run/`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paglets.codec.strict_json import loads
from paglets.core.errors import BadRequest, Unreachable
from paglets.core.refs import HostRef

NO_HOST = "no host runs on this computer"

START_ONE = ["paglets host --background", "or name a host elsewhere with HostClient(URL) or PAGLETS_AT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningHost:
    """What `<PAGLETS_HOME>/run/<name>.json` says of a host. `began`: when its process did, as `began` gives it."""

    name: str
    url: str
    store_id: str
    pid: int
    began: str = ""

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id, name=self.name, url=self.url)


def running_hosts(home: Path) -> tuple[RunningHost, ...]:
    """The hosts whose process lives, by name; a file that is not a run file is left out."""
    found = (read_run_file(path) for path in _run_files(home))
    return tuple(sorted((one for one in found if one is not None and lives(one)), key=lambda one: one.name))


def broken_run_files(home: Path) -> tuple[str, ...]:
    """Of each file that is not a run file one line, which names it. The host of that name writes it anew."""
    broken = (path for path in _run_files(home) if path.exists() and read_run_file(path) is None)
    return tuple(
        f"{path} is not the run file of a host, and is left out: the host {path.stem} writes it anew" for path in broken
    )


def _run_files(home: Path) -> list[Path]:
    return sorted((home / "run").glob("*.json"))


def local_host(home: Path, name: str | None = None) -> tuple[RunningHost, str]:
    """The host of that name, else the first by name; and a note where there was a choice.

    Raises Unreachable where none runs.
    """
    running = running_hosts(home)
    named = [one for one in running if name in (None, one.name)]
    if not named:
        raise _nobody(name, running)
    others = [one.name for one in named[1:]]
    note = f"speaking to {named[0].name}; also running here: {', '.join(others)} (choose with --at or PAGLETS_AT)"
    return named[0], note if others else ""


def _nobody(name: str | None, running: tuple[RunningHost, ...]) -> Unreachable:
    if running:
        return Unreachable(f"no host {name!r} runs on this computer; running here: {names_text(running)}")
    return no_host(f"no host {name!r} runs on this computer" if name else NO_HOST)


def no_host(message: str = NO_HOST) -> Unreachable:
    """Return the error where no host runs here, with what to do about it."""
    return Unreachable(message, hint=START_ONE)


def names_text(hosts: Iterable[RunningHost]) -> str:
    return ", ".join(host.name for host in hosts)


def read_run_file(path: Path) -> RunningHost | None:
    """None where there is none, or something else in its place."""
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


def began(pid: int) -> str:
    """When a process began, in a way that no other of its number has; "" where the system does not tell."""
    stat = _stat(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot} {stat[19]}" if stat else ""  # field 22 of all: ticks from the boot to its start


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, its state; empty where there is no such file."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # The name in parentheses may hold spaces and parentheses.
    return stat[stat.rindex(b")") + 2 :].decode().split()


def lives(host: RunningHost) -> bool:
    """Return True if the process of the host runs. A host that was killed leaves its file, and the number goes to
    another program; in a container that is started again it is even the same one each time."""
    now = began(host.pid)
    return _alive(host.pid) and (not host.began or not now or now == host.began)


def _alive(pid: int) -> bool:
    """Whether a process of that number lives. On Windows asking would end it, so there all are believed."""
    if os.name != "posix":
        return True
    if pid <= 0 or _stat(pid)[:1] == ["Z"]:  # ended, and whoever started it has not looked
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

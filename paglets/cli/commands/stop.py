"""`paglets stop`: stop hosts that run on this machine."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.cli.options import Parser, add_json, seconds
from paglets.cli.output import notice_if_slow, print_json
from paglets.core.errors import EXIT_DONE, Conflict, Invalid, PagletsError, TimedOut, Unknown
from paglets.core.refs import check_host_name
from paglets.core.terminal import put_line
from paglets.core.text import counted
from paglets.wire.keys import paglets_home
from paglets.wire.local_hosts import NO_HOST, RunningHost, is_running, names_text, running_hosts, start_of

STOP_SECONDS = 60.0
"""The default timeout. A host waits 15 s for its processes and 10 s for each thread, longer on a busy machine."""

ASK_SECONDS = 2.0
SLOW_SECONDS = 5.0
"""The time after which a notice about a slow stop is printed. A host ends within 1 to 2 s, unless jobs delay it."""

LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A host that has ended. `running_jobs`: the number of jobs that were running before the stop; None: unknown."""

    name: str
    pid: int
    running_jobs: int | None


def parser() -> Parser:
    made = Parser(
        prog="paglets stop",
        description="Stop a host on this machine, as Ctrl-C in its terminal does, and wait until it has ended. Its "
        "data stays. Jobs that were running run again when it restarts.",
        epilog="examples:\n  paglets stop\n  paglets stop laptop\n  paglets stop --all",
    )
    made.add_argument("name", nargs="?", metavar="NAME", help="stop this host (default: the only host that runs)")
    made.add_argument("--all", action="store_true", help="stop every host of this user on this machine")
    made.add_argument(
        "--timeout",
        type=seconds,
        default=STOP_SECONDS,
        metavar="SECONDS",
        help=f"wait at most this long (default: {STOP_SECONDS:g})",
    )
    add_json(made)
    made.set_defaults(handler=_stop, last="name")
    return made


def _stop(options: argparse.Namespace) -> int:
    home = paglets_home(os.environ)
    hosts = _chosen(running_hosts(home), options.name, everyone=options.all)
    if not hosts:
        put_line(_none_runs(home, options.name))
    jobs = {host.name: _running_jobs(host) for host in hosts}
    sent = [host for host in hosts if send(host, signal.SIGTERM)]
    end = time.monotonic() + options.timeout
    stopped = []
    for host in sent:
        _wait_for_exit(host, end)
        stopped.append(Stopped(name=host.name, pid=host.pid, running_jobs=jobs[host.name]))
        put_line(stopped_text(stopped[-1]))
    if options.json:
        print_json({"stopped": stopped})
    return EXIT_DONE


def _chosen(running: Sequence[RunningHost], name: str | None, *, everyone: bool) -> Sequence[RunningHost]:
    """Return the hosts to stop, possibly none. Raises Invalid if the choice is ambiguous."""
    if everyone and name:
        raise Invalid(f"--all conflicts with the name {name!r}", hint=["use one of them"])
    if name:
        return [host for host in running if host.name == name]
    if len(running) > 1 and not everyone:
        hint = ["paglets stop NAME", "paglets stop --all"]
        raise Invalid(f"{counted(len(running), 'host')} run on this machine: {names_text(running)}", hint=hint)
    return running


def _none_runs(home: Path, name: str | None) -> str:
    """Return the message that no host is running. Raises Unknown if no host of this machine ever had this name."""
    if not name:
        return NO_HOST
    check_host_name(name)
    if (home / "run" / f"{name}.store").exists() or (home / "hosts" / name).exists():
        return f"host {name} is not running"
    running = running_hosts(home)
    here = [f"running here: {names_text(running)}"] if running else []
    raise Unknown(
        f"no host {name!r} was ever started on this machine",
        hint=[*here, f"run `paglets stop {name}` on the machine of that host"],
    )


def send(host: RunningHost, number: signal.Signals) -> bool:
    """Send a signal to the process of the host, and to no other process. Return False if the process has ended.

    Raises Conflict if the system cannot tell whether the process id still belongs to the host.
    """
    descriptor = -1
    # Continue without a descriptor if the system has no pidfd_open or the process has ended.
    with suppress(AttributeError, OSError):
        descriptor = os.pidfd_open(host.pid)
    try:
        if not is_running(host):
            return False
        if not host.began or not start_of(host.pid):
            # `start_of` may have failed because the process ended after the first check.
            if not is_running(host):
                return False
            raise Conflict(
                f"this system cannot tell whether process {host.pid} is still host {host.name}",
                hint=[f"kill {host.pid} ends the process"],
            )
        if descriptor < 0:
            os.kill(host.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise Conflict(f"host {host.name} (process {host.pid}) belongs to another user") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _wait_for_exit(host: RunningHost, end: float) -> None:
    """Wait until the process has ended. Raises TimedOut."""
    try:
        with notice_if_slow(f"waiting for host {host.name} to end", SLOW_SECONDS):
            while is_running(host):
                if time.monotonic() > end:
                    hint = [f"kill -9 {host.pid} ends it at once; stored data is not lost"]
                    raise TimedOut(f"host {host.name} (process {host.pid}) has not ended yet", hint=hint)
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        put_line(f"host {host.name}: stopped waiting; the host is still ending")
        raise


def _running_jobs(host: RunningHost) -> int | None:
    """Return how many jobs a host is running, or None if it does not answer within ASK_SECONDS."""
    from paglets.client.connect import connect, open_mesh_client
    from paglets.client.slots import slots_of

    try:
        link, _ = open_mesh_client(host.url, connect(None, os.environ), os.environ)
        try:
            return slots_of(link, None, 1, ASK_SECONDS).running_jobs
        finally:
            link.close()
    except PagletsError:
        return None


def stopped_text(stopped: Stopped) -> str:
    """Return a message such as `host laptop has stopped; 2 jobs were running and will run again when it restarts`."""
    count = stopped.running_jobs or 0
    jobs = counted(count, "job was", "jobs were")
    more = f"; {jobs} running and will run again when it restarts" if count else ""
    return f"host {stopped.name} has stopped{more}"

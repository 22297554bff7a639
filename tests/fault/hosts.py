"""Functions that act on hosts and query them, for tests of faults."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from paglets.system.compute_slots import Submission
from tests.acceptance.rig import Finished, HostProcess, Mesh, group_lines, wait_until


@contextmanager
def asleep(host: HostProcess) -> Iterator[None]:
    """Suspend a host that neither ends nor answers, like a laptop with its lid closed."""
    process = psutil.Process(host.pid)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def is_online(at: HostProcess, name: str) -> bool:
    """Return True if the host `at` sees that host online."""
    return any(view.online for view in at.client.hosts() if view.host.name == name)


def forget(mesh: Mesh, name: str, at: str) -> Finished:
    """Run `mesh forget NAME` at the host `at`, once all running hosts see that host offline, since the command asks
    each."""
    wait_until(lambda: not any(is_online(host, name) for host in mesh.running()), what=f"{name} to be offline")
    return mesh.paglets("mesh", "forget", name, "--at", at)


def zygotes(host: HostProcess) -> list[psutil.Process]:
    """Return the zygote that runs share. Return none if it is starting, or the host does not run."""
    if host.process is None:
        return []
    found = []
    for child in psutil.Process(host.pid).children():
        with suppress(psutil.Error):  # it has just ended
            found += [child] if child.cmdline()[-1:] == ["_zygote"] else []
    return found


def ended(host: HostProcess, submission: Submission) -> int:
    """Return how many jobs of the group have a record, as far as this host knows."""
    line = group_lines(host).get(submission.group_id)
    return 0 if line is None else (line.completed_count or 0) + (line.failed_count or 0)

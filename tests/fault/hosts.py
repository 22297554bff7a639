"""What tests of faults do to hosts, and ask them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from paglets.system.compute_slots import Submission
from tests.acceptance.rig import Finished, HostProcess, Mesh, group_lines, wait_until


@contextmanager
def asleep(host: HostProcess) -> Iterator[None]:
    """A host that neither ends nor answers, as a laptop with its lid closed."""
    process = psutil.Process(host.pid)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def is_online(at: HostProcess, name: str) -> bool:
    """As the host `at` sees it."""
    return any(view.online for view in at.client.hosts() if view.host.name == name)


def forget(mesh: Mesh, name: str, at: str) -> Finished:
    """Run `mesh forget NAME` at the host `at`, once all running hosts take it for offline: the command asks each."""
    wait_until(lambda: not any(is_online(host, name) for host in mesh.running()), what=f"{name} to be offline")
    return mesh.paglets("mesh", "forget", name, "--at", at)


def zygotes(host: HostProcess) -> list[psutil.Process]:
    """The one that runs share; none where it is being started, or the host does not run."""
    if host.process is None:
        return []
    found = []
    for child in psutil.Process(host.pid).children():
        with suppress(psutil.Error):  # it has just ended
            found += [child] if child.cmdline()[-1:] == ["_zygote"] else []
    return found


def ended(host: HostProcess, submission: Submission) -> int:
    """How many jobs of the group have a record, as far as that host knows."""
    line = group_lines(host).get(submission.group_id)
    return 0 if line is None else (line.completed_count or 0) + (line.failed_count or 0)

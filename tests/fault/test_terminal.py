"""The terminal of a host is closed: the host stops in order. With nohup or in the background it goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios

from paglets.wire.local_hosts import running_hosts
from tests.acceptance.rig import HostProcess, Mesh, wait_until


def in_a_terminal(mesh: Mesh, *before: str) -> tuple[HostProcess, int]:
    """Start a host in its own session on a new terminal. Return it with the end that stands for the window."""
    window, terminal = os.openpty()
    host = mesh.host("alone")
    command = [*before, mesh.python, str(mesh.archive), "host", "--name", "alone", "--port", "0"]
    host.process = subprocess.Popen(
        command,
        cwd=mesh.work,
        env=mesh.environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        pass_fds=[terminal],
    )
    host.starts = 1
    os.close(terminal)
    host.wait_ready()
    return host, window


def test_a_host_whose_terminal_is_closed_ends_as_it_does_on_sigterm(mesh: Mesh) -> None:
    host, window = in_a_terminal(mesh)
    os.close(window)
    assert host.wait_ended() in (0, 120)  # Python's for a last line that nobody takes
    assert not (mesh.home / "run" / "alone.json").exists()
    assert not mesh.processes()


def test_a_host_with_nohup_and_one_in_the_background_outlive_their_terminals(mesh: Mesh) -> None:
    host, window = in_a_terminal(mesh, "nohup")
    os.close(window)
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGHUP)
    said = in_the_background(mesh, "--port", "0", "--peer", host.url)
    assert f"host other is ready ({cores()}, " in said
    assert said.rstrip().endswith(f"; log: {mesh.home}/hosts/other/host.log")
    wait_until(lambda: "other" in [each.host.name for each in host.client.hosts() if each.online], what="both")
    again = mesh.paglets("host", "--background", "--name", "other")
    (running,) = [each for each in running_hosts(mesh.home) if each.name == "other"]
    assert (again.code, again.err) == (0, f"host other is already running (process {running.pid})\n")
    taken = mesh.paglets("host", "--background", "--name", "third", "--port", host.port)
    assert (taken.code, taken.err.splitlines()[-1]) == (2, "host third did not start (exit code 2)")

    stopped = mesh.paglets("stop", "other", "--json")
    assert stopped.json == {"stopped": [{"name": "other", "pid": running.pid, "running_jobs": 0}]}
    assert stopped.err.splitlines()[-1] == "host other has stopped"  # a busy machine prints what it waits for
    log = (mesh.home / "hosts" / "other" / "host.log").read_text().splitlines()
    assert f"listening at {running.url} (mesh default)" in log[0]
    assert log[-1].endswith(" host other is stopping")
    assert mesh.paglets("stop").err.splitlines()[-1] == "host alone has stopped"
    assert host.wait_ended() == 0
    assert not mesh.processes()


def in_the_background(mesh: Mesh, *flags: str) -> str:
    """Start the host `other` on a new terminal, close that, and return the output."""
    window, terminal = os.openpty()
    done = subprocess.run(
        [mesh.python, str(mesh.archive), "host", "--background", "--name", "other", *flags],
        cwd=mesh.work,
        env=mesh.environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        pass_fds=[terminal],
        check=False,
    )
    os.close(terminal)
    said = os.read(window, 1 << 16).decode()
    os.close(window)
    assert done.returncode == 0, said
    return said


def cores() -> str:
    count = len(os.sched_getaffinity(0))
    return f"{count} core{'s' * (count != 1)}"

"""The terminal of a host is closed: it ends orderly; one that was started with nohup goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios

from tests.acceptance.rig import HostProcess, Mesh, wait_until


def in_a_terminal(mesh: Mesh, *before: str) -> tuple[HostProcess, int]:
    """A host in a session of its own on a new terminal, and the end that stands for its window."""
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


def test_a_host_that_was_started_with_nohup_outlives_its_terminal(mesh: Mesh) -> None:
    host, window = in_a_terminal(mesh, "nohup")
    os.close(window)
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGHUP)
    other = mesh.start("other", "--peer", host.url)
    mesh.wait_joined()
    assert wait_until(host.answers, what="an answer")
    other.stop()
    assert host.end_by(signal.SIGTERM) == 0

"""The start of a host in the background (`paglets host --background`), detached from the terminal."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from paglets.cli.host_flags import BACKGROUND_FLAG
from paglets.cli.output import notice_if_slow, say
from paglets.config import HostOptions
from paglets.core.command import carried_command, this_command
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from paglets.core.terminal import put_hint, put_line
from paglets.host.console import BACKGROUND
from paglets.host.datadir.damage import read_note
from paglets.program import Program, child_command, child_environment, this_program
from paglets.wire.keys import paglets_home
from paglets.wire.local_hosts import RunningHost, running_hosts

LOOK_SECONDS = 0.02
SLOW_SECONDS = 5.0
"""The time after which a notice about a slow start is printed. A start takes 1 to 2 s, unless recovery takes long."""


def start(options: HostOptions, words: Sequence[str], *, has_settings: bool) -> int:
    """Start the host in a detached process, show its output until it is ready, and return the exit code.

    `words`: the command line without the program's name. `has_settings`: the command line has flags other than the
    name. If the host is already running, it is left unchanged. Ctrl-C ends a host that is not ready yet.
    """
    home = paglets_home(os.environ)
    running = _running(home, options)
    if running is not None:
        put_line(f"host {running.name} is already running (process {running.pid})")
        if has_settings:
            put_hint("the running host keeps its settings; stop it first to change them")
        return EXIT_DONE
    process = _spawn(this_program(), [word for word in words if word != BACKGROUND_FLAG])
    try:
        with notice_if_slow(f"waiting for host {options.name} to start", SLOW_SECONDS):
            return _follow(process, home, options.name)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        say(f"host {options.name} was not started")
        return EXIT_INTERRUPTED


def spawn_detached(
    program: Program,
    words: Sequence[str],
    environment: dict[str, str],
    *,
    output: int,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `paglets WORDS` in its own session, detached from the terminal; stdout and stderr go to `output`."""
    return subprocess.Popen(
        child_command(program, *words),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _running(home: Path, options: HostOptions) -> RunningHost | None:
    """Return the running host with this name and data directory, or None.

    If a host with this name runs in another data directory, `start` starts a process, which reports the conflict.
    """
    note = read_note(options.data_dir or home / "hosts" / options.name)
    found = (one for one in running_hosts(home) if one.name == options.name)
    return next((one for one in found if note is not None and one.store_id == note.store_id), None)


def _spawn(program: Program, words: Sequence[str]) -> subprocess.Popen[bytes]:
    carried = carried_command(this_command(), str(program.path))
    here = os.environ | carried if program.archive else child_environment(program, os.environ)
    return spawn_detached(program, words, here | {BACKGROUND: "1"}, output=subprocess.PIPE)


def _follow(process: subprocess.Popen[bytes], home: Path, name: str) -> int:
    """Show the output of the process until it closes the pipe, and return the exit code of the command.

    The process closes the pipe when the host is ready or the process exits.
    """
    assert process.stdout is not None
    for line in process.stdout:
        put_line(line.decode("utf-8", "replace").rstrip("\n"))
    while process.poll() is None:
        if any(host.pid == process.pid for host in running_hosts(home)):
            return EXIT_DONE
        time.sleep(LOOK_SECONDS)
    put_line(f"host {name} did not start (exit code {process.returncode})")
    return process.returncode if process.returncode > 0 else EXIT_FAILED

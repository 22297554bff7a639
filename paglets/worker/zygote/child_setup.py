"""From a fork of the zygote to a process of its own, before any of the user's code runs."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from paglets.worker import linux
from paglets.worker.launch import LaunchSpec
from paglets.worker.zygote.output import Output, open_output

SOCKET_DESCRIPTOR = 3
"""Where a child finds its socket; below it are stdin, stdout and stderr, above it nothing."""

EXIT_NOT_SET_UP = 120
"""Exit code of a child that could not be set up; not one that shells or Python use."""

MOST_DESCRIPTORS = 1 << 14
"""A zygote holds four for each run; what a system gives by default is enough for 250 runs."""

_DESCRIPTOR_LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""As the zygote was started, and as its children are to have them."""


IGNORED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
)
"""Signals that would end or stop a zygote, and that a process may ignore."""

_handlers: dict[signal.Signals, Any] = {}
"""As the zygote was started with them, and as its children are to have them."""


def ignore_signals() -> None:
    """Ignore in a zygote what its children may send to their parent."""
    for number in IGNORED:
        _handlers[number] = signal.signal(number, signal.SIG_IGN) or signal.SIG_DFL


def fork() -> int:
    """Fork with signals blocked in the child, so that none is lost before `_restore_signals`. Raises OSError."""
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    return pid


def _restore_signals() -> None:
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)


def allow_many_descriptors() -> None:
    """As many as this process may give itself: it holds the pipes and logs of all runs."""
    soft, hard = _DESCRIPTOR_LIMITS
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Opened by the zygote, so that a missing folder or a full disk is told without a fork.

    `outputs` stay with the zygote; the rest is the child's.
    """

    socket: int
    null: int
    stdout: int
    stderr: int
    work_dir: int
    outputs: tuple[Output, ...]

    def close(self) -> None:
        """Close what is the child's."""
        for descriptor in (self.socket, self.null, self.stdout, self.stderr, self.work_dir):
            with suppress(OSError):
                os.close(descriptor)

    def close_all(self) -> None:
        """There is no child."""
        self.close()
        for output in self.outputs:
            output.close()


def open_descriptors(spec: LaunchSpec, child_socket: int) -> Descriptors:
    """What the child of `spec` will use. Raises OSError; `child_socket` is closed then too."""
    with ExitStack() as undo:

        def keep(descriptor: int) -> int:
            undo.callback(os.close, descriptor)
            return descriptor

        keep(child_socket)
        null = keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        work_dir = keep(os.open(spec.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        ends, outputs = [], []
        for path in (spec.stdout_path, spec.stderr_path):
            output, end = open_output(path)
            undo.callback(output.close)
            outputs.append(output)
            ends.append(keep(end))
        undo.pop_all()
    stdout, stderr = ends
    return Descriptors(
        socket=child_socket, null=null, stdout=stdout, stderr=stderr, work_dir=work_dir, outputs=tuple(outputs)
    )


def run_child(spec: LaunchSpec, opened: Descriptors, zygote: int, serve: Callable[[socket.socket], int]) -> NoReturn:
    """Become the process of `spec`, run `serve` and exit with what it gives. Never returns."""
    code = EXIT_NOT_SET_UP
    try:
        _leave_the_zygote(zygote)
        channel = _take_descriptors(opened)
        _set_environment(spec)
        linux.use_cores(spec.cores)
        code = serve(channel)
    except BaseException as error:
        with suppress(BaseException):
            sys.stderr.write(f"paglets: the process could not be set up: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _leave_the_zygote(zygote: int) -> None:
    os.setsid()
    linux.end_with_parent()
    if os.getppid() != zygote:
        os._exit(EXIT_NOT_SET_UP)
    # While it lives, what its descendants leave behind comes to this process, not to the zygote: so a child of
    # the zygote that the zygote did not fork belongs to a run that has ended.
    linux.become_subreaper()
    linux.be_first_when_memory_runs_out()
    # The only signal that the zygote handles; those that it ignores come after it.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _restore_signals()
    resource.setrlimit(resource.RLIMIT_NOFILE, _DESCRIPTOR_LIMITS)


def _take_descriptors(opened: Descriptors) -> socket.socket:
    # Opened after 0, 1 and 2 and after the zygote's control socket, all are 3 or above. The socket goes to 3
    # last, so that none of the others is written over.
    os.fchdir(opened.work_dir)
    for source, target in ((opened.null, 0), (opened.stdout, 1), (opened.stderr, 2)):
        os.dup2(source, target)
    if opened.socket != SOCKET_DESCRIPTOR:
        os.dup2(opened.socket, SOCKET_DESCRIPTOR, inheritable=False)
    for name in os.listdir("/dev/fd"):
        if int(name) > SOCKET_DESCRIPTOR:
            with suppress(OSError):
                os.close(int(name))
    return socket.socket(fileno=SOCKET_DESCRIPTOR)


def _set_environment(spec: LaunchSpec) -> None:
    linux.write_marker(spec.token)
    os.environ.update(spec.environment)
    os.environ.update(
        {
            "PAGLETS_JOB_ID": spec.agent_id,
            "PAGLETS_ATTEMPT": str(spec.attempt),
            linux.RUN_VARIABLE: spec.token,
            "PWD": spec.work_dir,
        }
    )

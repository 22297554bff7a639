"""The set-up of a forked child before any user code runs: session, signals, descriptors and environment."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from paglets.worker import linux
from paglets.worker.launch import LaunchSpec
from paglets.worker.zygote.output import OutputPipe, open_output_pipe

SOCKET_DESCRIPTOR = 3
"""File descriptor of a child's socket, next to stdin, stdout and stderr. All higher descriptors are closed."""

EXIT_NOT_SET_UP = 120
"""Exit code of a child whose set-up failed. Shells and Python do not use this code."""

MAX_DESCRIPTORS = 1 << 14
"""Maximum number of open descriptors of a zygote. It needs four per run, so the common limit of 1024 is too low."""

_DESCRIPTOR_LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limits for open descriptors when the zygote started. Its children get the same limits."""

IGNORED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
)
"""Signals that would end or stop a zygote if it did not ignore them. SIGKILL and SIGSTOP cannot be ignored."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables with the number of threads of numerical libraries. By default, such libraries use all cores of
the machine in each job. They read the variables when they are imported."""

Serve = Callable[[socket.socket, bool], int]
"""A function that runs a child, given its socket and True if it is a warm worker, and returns its exit code."""

_handlers: dict[signal.Signals, Any] = {}
"""The signal handlers when the zygote started. Its children get the same handlers."""


def ignore_signals() -> None:
    """Ignore the signals in IGNORED, because a child could send them to its parent, the zygote."""
    for number in IGNORED:
        _handlers[number] = signal.signal(number, signal.SIG_IGN) or signal.SIG_DFL


def fork() -> int:
    """Fork, and return like `os.fork`. Raises OSError.

    In the child, the signals in IGNORED are blocked until `_restore_signals` or `unblock_signals` is called, so that
    none is lost.
    """
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
    """Raise the limit for open descriptors, because the zygote holds the pipes and logs of all runs."""
    soft, hard = _DESCRIPTOR_LIMITS
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Descriptors for a child. The zygote opens them before the fork, because then it can report errors.

    `outputs`: the pipes and logs that stay open in the zygote. All others are for the child.
    """

    socket: int
    null: int
    stdout: int
    stderr: int
    work_dir: int
    outputs: tuple[OutputPipe, ...]

    def close(self) -> None:
        """Close the descriptors that are only for the child."""
        for descriptor in (self.socket, self.null, self.stdout, self.stderr, self.work_dir):
            with suppress(OSError):
                os.close(descriptor)

    def close_all(self) -> None:
        """Close all descriptors, because the fork failed."""
        self.close()
        for output in self.outputs:
            output.close()


def open_descriptors(spec: LaunchSpec, child_socket: int) -> Descriptors:
    """Open the descriptors for the child of `spec`. Raises OSError, after closing `child_socket`.

    A warm worker has no output of its own. It gets the pipes for the output of a job together with the job.
    """
    with ExitStack() as undo:

        def keep(descriptor: int) -> int:
            undo.callback(os.close, descriptor)
            return descriptor

        keep(child_socket)
        null = keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        work_dir = keep(os.open(spec.work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        ends, outputs = [], []
        for path in () if spec.is_worker else (spec.stdout_path, spec.stderr_path):
            output, end = open_output_pipe(path)
            undo.callback(output.close)
            outputs.append(output)
            ends.append(keep(end))
        while len(ends) < 2:
            ends.append(keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)))
        undo.pop_all()
    stdout, stderr = ends
    return Descriptors(
        socket=child_socket, null=null, stdout=stdout, stderr=stderr, work_dir=work_dir, outputs=tuple(outputs)
    )


def run_child(spec: LaunchSpec, opened: Descriptors, zygote: int, serve: Serve) -> NoReturn:
    """Set up this forked process as `spec` describes, run `serve`, and exit with the code that it returns."""
    code = EXIT_NOT_SET_UP
    try:
        leave_zygote(zygote)
        _restore_signals()
        resource.setrlimit(resource.RLIMIT_NOFILE, _DESCRIPTOR_LIMITS)
        channel = _take_descriptors(opened)
        _set_environment(spec)
        linux.use_cores(spec.cores)
        code = serve(channel, spec.is_worker)
    except BaseException as error:
        with suppress(BaseException):
            sys.stderr.write(f"paglets: the process could not be set up: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def leave_zygote(zygote: int) -> None:
    """Separate this forked process from the signals of its parent `zygote`. On Linux, it ends when the parent ends."""
    os.setsid()
    linux.end_with_parent()
    if os.getppid() != zygote:
        os._exit(EXIT_NOT_SET_UP)
    # While this process lives, orphans among its descendants become its children. They become children of the zygote
    # only after this process has ended.
    linux.become_subreaper()
    linux.raise_oom_score()
    # SIGCHLD is the only signal that the zygote handles. `_restore_signals` resets the signals that the zygote ignores.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def unblock_signals() -> None:
    """Unblock the signals that `fork` blocked. This process continues to ignore them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)


def _take_descriptors(opened: Descriptors) -> socket.socket:
    # All descriptors in `opened` are 3 or above, because 0, 1, 2 and the control socket were opened before. Move the
    # socket to 3 last, so that it does not overwrite another descriptor.
    os.fchdir(opened.work_dir)
    for source, target in ((opened.null, 0), (opened.stdout, 1), (opened.stderr, 2)):
        os.dup2(source, target)
    return take_socket(opened.socket)


def take_socket(descriptor: int) -> socket.socket:
    """Move a socket to SOCKET_DESCRIPTOR, and close all higher descriptors."""
    if descriptor != SOCKET_DESCRIPTOR:
        os.dup2(descriptor, SOCKET_DESCRIPTOR, inheritable=False)
    for name in os.listdir("/dev/fd"):
        if int(name) > SOCKET_DESCRIPTOR:
            with suppress(OSError):
                os.close(int(name))
    return socket.socket(fileno=SOCKET_DESCRIPTOR)


def set_job_environment(environment: Mapping[str, str], threads: int) -> None:
    """Set the variables in `environment`. Then set the missing THREAD_VARIABLES to `threads`, unless that is 0."""
    os.environ.update(environment)
    if threads:
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(threads))


def _set_environment(spec: LaunchSpec) -> None:
    linux.write_marker(spec.token)
    set_job_environment(spec.environment, spec.threads)
    os.environ.update(
        {
            "PAGLETS_JOB_ID": spec.agent_id,
            "PAGLETS_ATTEMPT": str(spec.attempt),
            linux.RUN_VARIABLE: spec.token,
            "PWD": spec.work_dir,
        }
    )

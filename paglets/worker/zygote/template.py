"""The process of a template: a zygote that imports the module of a job once, and then forks the runs that need it.

The shared zygote forks the template, which runs no user code before its host has stored it and sends `import`. After
the import, the template checks itself (`template_checks`, `import_watch`). If a run could notice that the import
happened in another process, the template reports the reason and exits. Its jobs then import their module themselves.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from paglets.codec.class_names import import_module_of
from paglets.codec.dataclass_fields import prepare_fields
from paglets.core.agent import Paglet
from paglets.core.errors import Invalid
from paglets.worker import linux
from paglets.worker.child.main import add_to_path, code_folder, exit_function_count, serve
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import TemplateSource
from paglets.worker.observation import Observation, observe
from paglets.worker.processes import ProcTable
from paglets.worker.zygote.child_setup import (
    EXIT_NOT_SET_UP,
    Serve,
    leave_zygote,
    set_job_environment,
    take_socket,
    unblock_signals,
)
from paglets.worker.zygote.import_watch import Generators, ImportWatch
from paglets.worker.zygote.template_checks import (
    MAX_OUTPUT_BYTES,
    failure_refusal,
    output_refusal,
    process_refusal,
    source_refusal,
)
from paglets.worker.zygote.warm_worker import WorkerStart, serve_worker
from paglets.worker.zygote_protocol import Imported, ImportModule, StartTemplate, from_frame, to_frame

READ_BYTES = 1 << 16

THREAD_END_SECONDS = 0.2
"""Time for a thread to vanish from /proc after a library has waited for its end."""


def run_template(
    request: StartTemplate, control: int, zygote: int, run_zygote: Callable[[socket.socket, Serve], int]
) -> NoReturn:
    """Make this forked process a template. `run_zygote`: runs a zygote, given its control socket and a `Serve`."""
    code = EXIT_NOT_SET_UP
    try:
        leave_zygote(zygote)
        unblock_signals()
        channel = take_socket(control)
        linux.write_marker(request.token)
        set_job_environment(request.environment, request.threads)
        source = _receive_import(channel)
        if source is not None:
            template = _Template()
            refusal = template.import_module(source)
            channel.sendall(pack(to_frame(Imported(refusal=refusal, has_failed=template.has_failed))))
            code = 0 if refusal else run_zygote(channel, template.serve)
    except BaseException as error:
        with suppress(BaseException):
            sys.stderr.write(f"paglets template: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _receive_import(channel: socket.socket) -> TemplateSource | None:
    """Wait for the frame `import`. Return None if the host has closed the socket or has ended."""
    unpacker = Unpacker()
    while data := channel.recv(READ_BYTES):
        for frame in unpacker.feed(data):
            request = from_frame(frame)
            if isinstance(request, ImportModule):
                return request.source
    return None


class _Template:
    """A template in its own process: it imports a module, and each run is forked from it.

    `has_failed`: True if the import raised an error.
    """

    def __init__(self) -> None:
        self.has_failed = False
        self._exit_functions = exit_function_count()
        self._generators = Generators(set())
        self._printed = (b"", b"")

    def import_module(self, source: TemplateSource) -> str:
        """Import the module of a job. Return why no run can be forked from this process, or "" if one can."""
        with _RecordedOutput() as printed:
            refusal = self._import(source)
        self._printed = printed.content
        refusal = refusal or output_refusal(sum(map(len, self._printed)))
        # Frozen objects are not touched by the garbage collector, so their memory pages stay shared with the runs.
        gc.collect()
        gc.freeze()
        return refusal

    def _import(self, source: TemplateSource) -> str:
        try:
            _enter_missing_folder()
            folder = code_folder(source.code)
            add_to_path((folder, *source.code_paths))
            before = _observe()
            gc.enable()
            with ImportWatch(folder) as watch:
                import_module_of(source.module)
                _prepare_states(source.module)
            gc.disable()
        except BaseException as error:
            # Catch SystemExit and KeyboardInterrupt, too: each attempt repeats the import, and then handles the error.
            self.has_failed = True
            return failure_refusal(error)
        self._generators = Generators(watch.seeded)
        files = {name: str(getattr(module, "__file__", "")) for name, module in list(sys.modules.items())}
        return watch.refusal or process_refusal(before, _observe()) or source_refusal(files, source.code_paths)

    def serve(self, connection: socket.socket, is_worker: bool) -> int:
        """Run a child that was forked from this process, and return its exit code."""
        if is_worker:
            return serve_worker(connection, WorkerStart(generators=self._generators, printed=self._printed))
        for descriptor, printed in enumerate(self._printed, start=1):
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(printed)
        self._generators.renew()
        return serve(connection, self._exit_functions)


class _RecordedOutput:
    """A context manager that records stdout and stderr of this process and its children in `content`."""

    def __init__(self) -> None:
        self.content = (b"", b"")

    def __enter__(self) -> _RecordedOutput:
        self._log = os.dup(2)
        self._files = (tempfile.TemporaryFile(buffering=0), tempfile.TemporaryFile(buffering=0))
        for descriptor, file in enumerate(self._files, start=1):
            os.dup2(file.fileno(), descriptor)
        return self

    def __exit__(self, *error: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        # A template with a larger output is refused, so more bytes are not needed.
        stdout, stderr = (os.pread(file.fileno(), MAX_OUTPUT_BYTES + 1, 0) for file in self._files)
        self.content = (stdout, stderr)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(self._log, 2)
        for descriptor in (null, self._log):
            os.close(descriptor)
        for file in self._files:
            file.close()


def _prepare_states(module: str) -> None:
    """Find the fields of the states of a module's classes now, because it would take long in each run."""
    for cls in list(getattr(sys.modules.get(module), "__dict__", {}).values()):
        if isinstance(cls, type) and issubclass(cls, Paglet):
            with suppress(Invalid):
                prepare_fields(cls.State)


def _enter_missing_folder() -> None:
    """Change to a new folder and remove it.

    A module that needs the scratch directory of a job then fails to import, and its jobs get no template.
    """
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def _observe() -> Observation:
    """Return an observation of this process. Threads that a library ends before each fork are not counted."""
    return observe(_child_count(), _threads_after_fork())


def _child_count() -> int:
    own = os.getpid()
    return sum(info.parent == own for info in ProcTable().all().values())


def _threads_after_fork() -> int:
    """Fork a child that exits at once. Return the number of threads of this process after that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    ends_at = time.monotonic() + THREAD_END_SECONDS
    while (count := len(os.listdir("/proc/self/task"))) > 1 and time.monotonic() < ends_at:
        time.sleep(0.001)
    return count

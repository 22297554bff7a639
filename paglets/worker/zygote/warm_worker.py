"""The process of a warm worker: it runs jobs of one code bundle with equal slot requests, one after the other.

The jobs share the imports and the globals of their modules, and nothing else. After each job the worker checks itself.
If the job has left something behind, or has failed, the worker exits. The job then counts as ended only when all
processes of the worker have ended.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

from paglets.codec.class_names import import_module_of
from paglets.core.errors import PagletsError
from paglets.slots.amounts import bytes_text
from paglets.worker.child.channel import READ_BYTES, Channel
from paglets.worker.child.main import PagletProcess, add_to_path, code_folder, run_exit_functions, start_listener
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import EXIT_HOST_GONE
from paglets.worker.linux import has_children, own_memory
from paglets.worker.observation import Observation, difference, observe
from paglets.worker.processes import ProcTable
from paglets.worker.protocol import Go
from paglets.worker.worker_protocol import Began, JobEnded, Withdrawn, WorkerLeaves, WorkerRecord, to_frame
from paglets.worker.zygote.import_watch import ATTEMPT_VARIABLES, Generators, ImportWatch
from paglets.worker.zygote.template_checks import source_refusal

MAX_DESCRIPTORS = 2
OUTPUTS = (1, 2)
LEFT_MEMORY_BYTES = 256 << 20
"""The memory that jobs may leave in a worker if they ask for less: a few imports and caches. No lease counts it."""
LATE_SECONDS = 0.1
"""Time to wait for the end of a thread or child process that was still ending when its job returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStart:
    """The results of the import in a template from which a worker was forked.

    `printed`: the stdout and stderr of the import, which the first job prints again.
    """

    generators: Generators
    printed: tuple[bytes, bytes]


@dataclass(slots=True, kw_only=True)
class ReceivedJob:
    """A job that the host has sent. `outputs`: the descriptors of its stdout and stderr."""

    frame: dict[str, Any]
    outputs: tuple[int, ...]
    channel: Channel

    @property
    def token(self) -> str:
        token: str = self.frame["go"]["stamp"]["token"]
        return token


def serve_worker(connection: socket.socket, start: WorkerStart | None) -> int:
    """Run a warm worker in this process, and return its exit code. `start`: None without a template."""
    gc.enable()
    return WarmWorker(connection, start).run()


class WarmWorker:
    """A warm worker in this process. A thread reads the socket; the jobs run on the main thread."""

    def __init__(self, connection: socket.socket, start: WorkerStart | None) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: deque[ReceivedJob] = deque()
        self._current: ReceivedJob | None = None
        self._is_finishing = False
        self._start = start
        self._generators = None if start is None else start.generators
        self._before: Observation | None = None
        self._memory_before = 0
        self._not_libraries: tuple[str, ...] = ()
        self._jobs = 0
        self._table = ProcTable()
        self._received: set[int] = set()
        self._outputs: dict[str, tuple[int, int] | None] = {}
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def run(self) -> int:
        os.register_at_fork(after_in_child=self._after_fork)
        start_listener(self._listen)
        while (job := self._next()) is not None:
            code = self._run(job)
            if code is not None:
                return run_exit_functions(code)
        return run_exit_functions(0)

    # The methods below use the socket.

    def _listen(self) -> None:
        unpacker, outputs = Unpacker(), deque[tuple[int, ...]]()
        waiter = select.poll()
        waiter.register(self._connection, select.POLLIN)
        try:
            while True:
                data, descriptors, is_cut = self._receive(waiter)
                for descriptor in descriptors:
                    os.set_inheritable(descriptor, False)
                # The kernel ends a read after data that came with descriptors. So these are all of one job.
                if descriptors or is_cut:
                    outputs.append(descriptors)
                if not data:
                    break
                for frame in unpacker.feed(data):
                    self._take(frame, outputs)
        except (ConnectionError, PagletsError):
            pass
        finally:
            # Without this thread, the job would wait for replies forever.
            os._exit(EXIT_HOST_GONE)

    def _receive(self, waiter: select.poll) -> tuple[bytes, tuple[int, ...], bool]:
        """Wait for data. Return it, its descriptors, and whether the kernel has dropped descriptors.

        Descriptors arrive and are recorded under the lock, so that `_observe` does not count them as files of the job.
        """
        waiter.poll()
        with self._changed:
            data, descriptors, flags, _ = socket.recv_fds(self._connection, READ_BYTES, MAX_DESCRIPTORS)
            self._received.update(descriptors)
        return data, tuple(descriptors), bool(flags & socket.MSG_CTRUNC)

    def _take(self, frame: dict[str, Any], outputs: deque[tuple[int, ...]]) -> None:
        with self._changed:
            if "go" in frame:
                self._add(frame, outputs.popleft())
            elif "withdraw" in frame:
                self._withdraw(frame["withdraw"])
            elif "run" in frame:
                self._pass_on(frame)
            elif "finish" in frame:
                self._is_finishing = True
            self._changed.notify_all()

    def _add(self, frame: dict[str, Any], outputs: tuple[int, ...]) -> None:
        """Add a job. Give it back if the current job has so many open files that the outputs could not be received."""
        channel = Channel(self._connection, self._sending, start_listener, is_of_worker=True)
        job = ReceivedJob(frame=frame, outputs=outputs, channel=channel)
        if len(outputs) == len(OUTPUTS):
            self._waiting.append(job)
        else:
            self._give_back(job)

    def _pass_on(self, frame: dict[str, Any]) -> None:
        """Hand a frame to its job. Drop the frame if the job has ended."""
        for job in (*self._waiting, *(() if self._current is None else (self._current,))):
            if job.token == frame["run"]:
                job.channel.handle(frame)

    def _withdraw(self, token: str) -> None:
        for job in [job for job in self._waiting if job.token == token]:
            self._waiting.remove(job)
            self._give_back(job)

    def _give_back(self, job: ReceivedJob) -> None:
        for output in job.outputs:
            self._received.discard(output)
            os.close(output)
        self._tell(Withdrawn(token=job.token))

    def _tell(self, record: WorkerRecord, before: bytes = b"") -> None:
        """Send a record after the frame `before`."""
        try:
            with self._sending:
                self._connection.sendall(before + pack(to_frame(record)))
        except OSError:
            os._exit(EXIT_HOST_GONE)

    def _after_fork(self) -> None:
        self._connection.close()
        if self._current is not None:
            self._current.channel.after_fork()

    # The methods below run the jobs.

    def _next(self) -> ReceivedJob | None:
        """Wait for a job, send `began`, and return the job. Return None after `finish` if no job waits."""
        with self._changed:
            while not self._waiting:
                if self._is_finishing:
                    return None
                self._changed.wait()
            job = self._current = self._waiting.popleft()
            self._tell(Began(token=job.token, cpu_before=_cpu_seconds()))
        return job

    def _run(self, job: ReceivedJob) -> int | None:
        """Run a job. Return None if the worker can run another job, otherwise its exit code."""
        _reset_peak_memory()
        cpu_before = _cpu_seconds()
        go = job.channel.begin(job.frame)
        self._enter(job, go)
        self._prepare(go)
        process = PagletProcess(job.channel, go)
        code = process.run()
        has_failed = bool(code) or process.failed
        del process  # The memory of the paglet is not left behind.
        job.channel.close()
        change = self._change(job.channel) or _outside_change(go)
        change = _flush() or self._changed_output() or change or self._left_memory(go)
        if change or has_failed:
            self._tell(WorkerLeaves(token=job.token, difference=change), job.channel.take_held())
            return code
        self._leave()
        memory = getrusage(RUSAGE_SELF).ru_maxrss * 1024
        ended = JobEnded(token=job.token, cpu_seconds=_cpu_seconds() - cpu_before, rss_bytes=memory)
        self._tell(ended, job.channel.take_held())
        return None

    def _enter(self, job: ReceivedJob, go: Go) -> None:
        """Set the stdout, the stderr, the directory and the environment of this process for a job."""
        for output, target in zip(job.outputs, OUTPUTS, strict=True):
            os.dup2(output, target)
            with self._changed:
                self._received.discard(output)
                os.close(output)
        self._outputs = _outputs()
        if self._start is not None and not self._jobs:
            for target, printed in zip(OUTPUTS, self._start.printed, strict=True):
                with open(target, "wb", closefd=False) as stream:
                    stream.write(printed)
        self._jobs += 1
        os.chdir(go.work_dir)
        # Keep the marker of the worker. Processes that the job leaves behind are found by it, and end with the worker.
        attempt = str(go.stamp.attempt)
        os.environ.update({"PAGLETS_JOB_ID": go.stamp.agent_id, "PAGLETS_ATTEMPT": attempt, "PWD": go.work_dir})

    def _prepare(self, go: Go) -> None:
        """Renew the random generators. Before the first job, import its module and observe the process."""
        if self._generators is None:
            self._generators = _import_module(go)
        self._not_libraries = (go.work_dir, *go.code_paths, *(() if go.code is None else (go.code.folder,)))
        self._memory_before = self._memory_before or own_memory()
        before = self._before or self._observe()
        place = os.stat(".")
        self._before = replace(before, directory=(place.st_dev, place.st_ino))
        self._generators.renew()

    def _change(self, channel: Channel) -> str:
        """Return the change that the job has left in this process (`observation.difference`); "" if there is none."""
        assert self._before is not None
        until = time.monotonic() + LATE_SECONDS
        after = self._observe()
        while (change := self._difference(after)) and time.monotonic() < until:
            channel.send(channel.take_held())
            time.sleep(0.002)
            after = self._observe()
        # Libraries start their threads with the first computation, and keep them. So later jobs may have these threads.
        self._before = replace(self._before, native_threads=max(self._before.native_threads, after.native_threads))
        return change

    def _difference(self, after: Observation) -> str:
        assert self._before is not None
        first = self._jobs == 1
        return difference(self._before, replace(after, native_threads=0) if first else after)

    def _observe(self) -> Observation:
        with self._changed:
            return observe(
                len(self._table.children(os.getpid())) if has_children() else 0,
                len(os.listdir("/proc/self/task")),
                ignored_variables=ATTEMPT_VARIABLES,
                ignored_descriptors={*OUTPUTS, *self._received},
                not_libraries=self._not_libraries,
            )

    def _left_memory(self, go: Go) -> str:
        """Return a text if jobs have left more memory than they ask for and than LEFT_MEMORY_BYTES; "" otherwise."""
        limit = self._memory_before + max(go.memory_bytes, LEFT_MEMORY_BYTES)
        if own_memory() <= limit:
            return ""
        gc.collect()
        memory = own_memory()
        return f"left {bytes_text(memory - self._memory_before)} in memory" if memory > limit else ""

    def _changed_output(self) -> str:
        """Return a text if the job has closed or replaced a descriptor of its output; "" otherwise.

        A number that the job has closed may be open again, for a pipe of the next job.
        """
        now = _outputs()
        changed = [name for name, pipe in self._outputs.items() if pipe != now[name]]
        return f"closed or replaced the file descriptor of {changed[0]}" if changed else ""

    def _leave(self) -> None:
        """Close the output of a job, and leave its scratch directory, because the host removes the directory."""
        with self._changed:
            self._current = None
        for target in OUTPUTS:
            os.dup2(self._null, target)
        os.chdir("/")


def _import_module(go: Go) -> Generators:
    """Import the module of a job. Ignore errors, because the job imports the module again and reports them."""
    watch: ImportWatch | None = None
    try:
        folder = "" if go.code is None else code_folder(go.code)
        add_to_path((folder, *go.code_paths) if folder else go.code_paths)
        with ImportWatch(folder) as watch:
            import_module_of(go.class_name.partition(":")[0])
    except BaseException:
        return Generators(set())
    return Generators(watch.seeded)


def _outside_change(go: Go) -> str:
    """Return why the worker must not run another job: a module comes from a code path of the host, where it may change.

    Return "" if none does.
    """
    if not go.code_paths:
        return ""
    files = {name: str(getattr(module, "__file__", "")) for name, module in list(sys.modules.items())}
    return source_refusal(files, go.code_paths).removeprefix("it ")


def _outputs() -> dict[str, tuple[int, int] | None]:
    """Return the identities of the files at the descriptors of stdout and stderr. None: the descriptor is closed."""
    found: dict[str, tuple[int, int] | None] = {}
    for name, target in zip(("stdout", "stderr"), OUTPUTS, strict=True):
        try:
            file = os.fstat(target)
            found[name] = (file.st_dev, file.st_ino)
        except OSError:
            found[name] = None
    return found


def _flush() -> str:
    """Write what is left in the buffers of stdout and stderr. Undo a redirection that the job has left.

    Return "closed stdout" or "closed stderr" if the job has closed a stream, since no later job can print to it. Return
    "" otherwise.
    """
    sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr
    change = ""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        try:
            stream.flush()
        except ValueError:
            change = change or f"closed {name}"
        except OSError:
            pass  # The log lacks this output, but the job is not to blame.
    return change


def _cpu_seconds() -> float:
    uses = (getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _reset_peak_memory() -> None:
    """Reset the peak memory that the kernel has recorded for this process."""
    with suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")

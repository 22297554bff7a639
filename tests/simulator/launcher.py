"""A launcher whose processes are coroutines. Its pool of warm workers is the real one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from paglets.core.clock import Entropy
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import LaunchEvents, LaunchSpec, ProcessExit
from tests.fakes.clock import FakeClock
from tests.simulator.folders import Folders
from tests.simulator.fuse import AT_FRAME, AT_LAUNCH, Fuse
from tests.simulator.processes import Child, Death, Process, ProcessSeams, Scripts
from tests.simulator.seams import Alive
from tests.simulator.tampering import Tampering
from tests.simulator.templates import Run, TemplateSeams
from tests.simulator.witness import Witness
from tests.simulator.workers import SIGKILL, SimWorker

FORK_SECONDS = (0.001, 0.02)
KILL_SECONDS = (0.001, 0.3)


class SimLauncher:
    """A launcher of one start of a host. Its processes write to `folders`."""

    def __init__(
        self,
        *,
        clock: FakeClock,
        entropy: Entropy,
        life: Alive,
        fuse: Fuse,
        events: LaunchEvents,
        scripts: Scripts,
        folders: Folders,
        witness: Witness,
        tampering: Tampering,
        is_stored: Callable[[str], bool],
    ) -> None:
        """Create a launcher. `is_stored`: as in `processes.ProcessSeams`."""
        self.entropy = entropy
        self._clock = clock
        self._life = life
        self._fuse = fuse
        self._witness = witness
        self._processes: dict[str, Process] = {}
        self._deaths: list[Death] = []
        self._pids = 1000
        self._due_at: float | None = None
        self._make_worker = tampering.worker
        self._pool = tampering.pool(self, events)
        self._seams = ProcessSeams(
            clock=clock,
            entropy=entropy,
            scripts=scripts,
            folders=folders,
            witness=witness,
            reports=self._pool,
            later=self.later,
            wait=self._wait,
            gone=self._gone,
            lose_zygote=self.lose_zygote,
            state_of=tampering.state_of,
            frame=tampering.frame,
            is_stored=is_stored,
            dies=self._dies,
        )
        self.templates = tampering.templates(
            TemplateSeams(
                clock=clock,
                entropy=entropy,
                events=events.templates,
                witness=witness,
                is_stored=is_stored,
                later=self.later,
                fork=self._fork,
                new_pid=self._new_pid,
            )
        )

    # Requests of the host.

    def start(self, spec: LaunchSpec) -> None:
        self._fuse.reach(AT_LAUNCH)
        self._pool.start(spec)

    def send(self, token: str, frame: dict[str, Any]) -> None:
        self._fuse.reach(AT_FRAME)
        self._pool.send(token, pack({**frame, "run": token}), is_go="go" in frame)

    def end(self, token: str) -> None:
        self._pool.end(token)

    def withdraw(self, token: str) -> None:
        self._pool.withdraw(token)

    def allow_import(self, token: str) -> None:
        self.templates.allow_import(token)
        self._pool.allow(token)

    def end_idle(self) -> None:
        self.templates.end_idle()
        self._pool.end_idle()

    def close(self) -> None:
        self.power_off()

    # Requests of the pool.

    def start_process(self, spec: LaunchSpec) -> None:
        process = (self._make_worker if spec.is_worker else Child)(self._seams, spec)
        self._processes[spec.token] = process
        if not self.templates.take(process, spec):
            self._fork(process)

    def write(self, token: str, data: bytes) -> None:
        if token in self._processes:
            for frame in Unpacker().feed(data):
                self._processes[token].hear(frame)

    def write_job(self, worker: str, data: bytes, spec: LaunchSpec) -> None:
        self.write(worker, data)

    def begin_job(self, worker: str, work_dir: str) -> None:
        """Do nothing: simulated jobs use no resources."""

    def exit_of_job(self, spec: LaunchSpec, how: ProcessExit) -> ProcessExit:
        return how

    def end_process(self, token: str) -> None:
        process = self._processes.get(token)
        if process is not None:
            self.later(KILL_SECONDS, lambda: process.exit(ProcessExit(signal=SIGKILL)))

    def now(self) -> float:
        return self._clock.monotonic()

    # Processes.

    def _fork(self, run: Run) -> None:
        self.later(FORK_SECONDS, partial(run.fork, self._new_pid()))

    def _new_pid(self) -> int:
        self._pids += 1
        return self._pids

    def _gone(self, token: str, how: ProcessExit) -> None:
        process = self._processes.pop(token, None)
        if process is not None:
            self.templates.ended(process)
        self._pool.ended(token, how)

    def later(self, bounds: tuple[float, float], action: Callable[[], None]) -> None:
        self._wait(self.entropy.uniform(*bounds), action)

    def _wait(self, seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if self._life.alive:
                action()
                self._plan_due()

        self._clock.call_at(self._clock.monotonic() + seconds, act)

    def _plan_due(self) -> None:
        """Let the pool do what is due next at its time."""
        due = self._pool.next_due()
        if due is not None and (self._due_at is None or due < self._due_at):
            self._due_at = due
            self._wait(max(0.0, due - self._clock.monotonic()), partial(self._do_due, due))

    def _do_due(self, due: float) -> None:
        if self._due_at == due:
            self._due_at = None
            self._pool.do_due(self._clock.monotonic())

    # Faults.

    def power_off(self) -> list[str]:
        """Drop all processes without reporting their ends.

        Return the tokens of templates and warm workers that have run user code.
        """
        workers = self._used_workers()
        for worker in workers:
            for go in worker.jobs():
                self._witness.crashed_in_worker(go)
        for process in self._processes.values():
            process.drop()
        self._processes.clear()
        return [*self.templates.power_off(), *(worker.token for worker in workers)]

    def lose_zygote(self, culprit: Process | None = None) -> None:
        """End the zygote of `culprit` (None: the shared zygote) and all its children."""
        if culprit is not None and culprit.is_alone:
            culprit.exit(ProcessExit(launcher_lost=True, launcher_died=True, is_culprit=True))
            return
        if culprit is not None and self.templates.lose_of(culprit):
            return
        self.templates.lose_all()
        for process in list(self._processes.values()):
            if not process.is_alone:
                process.exit(ProcessExit(launcher_lost=True, launcher_died=True))

    def lose_worker(self, at: Death) -> bool:
        """Kill a warm worker now, or the first one at a later moment. Return False if there is none now.

        It has run a job before. Otherwise its first job would be charged, like one with a process of its own.
        """
        workers = self._used_workers()
        if at is not Death.NOW:
            self._deaths.append(at)
        elif workers:
            workers[self.entropy.pick(len(workers))].kill()
        return at is not Death.NOW or bool(workers)

    def _dies(self, at: Death) -> bool:
        if at not in self._deaths:
            return False
        self._deaths.remove(at)
        return True

    def _used_workers(self) -> list[SimWorker]:
        """Return the workers that have run code of the user."""
        workers = (process for process in self._processes.values() if isinstance(process, SimWorker))
        return [worker for worker in workers if worker.has_run_code]

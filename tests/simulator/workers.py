"""Simulated warm workers. They follow the rules of `paglets.worker.zygote.warm_worker`."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from paglets.core.record import from_json
from paglets.worker.launch import LaunchSpec, ProcessExit
from paglets.worker.protocol import Go
from paglets.worker.worker_protocol import Began, JobEnded, Withdrawn, WorkerLeaves, WorkerRecord, to_frame
from tests.simulator.processes import Death, Execution, Process, ProcessSeams
from tests.simulator.seen import Seen

FRAME_SECONDS = (0.0001, 0.001)
"""The time of a frame is short, so that jobs of milliseconds take less time than the work that is sent ahead."""

SIGKILL = 9
LEFT_OF_10 = 1
"""The number of jobs of ten that leave something behind in their process."""

LEFT = ("left a thread", "left a child process", "changed the working directory")


class SimWorker(Process):
    """A process that runs the jobs of one key, one after the other.

    `left`: what user code has left behind, and which run did so. `job`: the token of the run whose id and directory the
    process has.
    """

    frame_seconds = FRAME_SECONDS

    def __init__(self, seams: ProcessSeams, spec: LaunchSpec) -> None:
        super().__init__(seams, spec)
        self.left: tuple[str, str] = ("", "")
        self.job = ""
        self.has_run_code = False
        self._waiting: deque[Go] = deque()
        self._current: Execution | None = None
        self._ran: set[str | None] = {None}
        self._finishing = False

    def executions(self) -> tuple[Execution, ...]:
        return () if self._current is None else (self._current,)

    def jobs(self) -> tuple[Go, ...]:
        """Return the job that runs, and those that wait in this process."""
        return (*(execution.go for execution in self.executions()), *self._waiting)

    # Frames of the host.

    def take(self, frame: dict[str, Any]) -> None:
        if "go" in frame:
            if self._current is not None:
                self.seams.witness.saw(Seen.AHEAD)
            self._waiting.append(from_json(Go, frame["go"]))
        elif "withdraw" in frame:
            self._withdraw(frame["withdraw"])
        elif "run" in frame:
            # A job that has ended gets no frames.
            for execution in self.executions():
                if execution.go.stamp.token == frame["run"]:
                    execution.hear(frame)
            return
        elif "finish" in frame:
            self._finishing = True
        self._begin_next()

    def _withdraw(self, token: str) -> None:
        for go in [go for go in self._waiting if go.stamp.token == token]:
            self._waiting.remove(go)
            self.seams.witness.saw(Seen.TAKEN_BACK)
            self._tell(Withdrawn(token=token))

    def _tell(self, record: WorkerRecord) -> None:
        self.say(to_frame(record))

    # The jobs.

    def _begin_next(self) -> None:
        if self.over or self._current is not None:
            return
        if self._waiting and self.has_run_code and self.seams.dies(Death.BEFORE_JOB):
            self.seams.witness.saw(Seen.NOT_BEGUN)
            self.exit(ProcessExit(signal=SIGKILL))
        elif self._waiting:
            go = self._waiting.popleft()
            self._tell(Began(token=go.stamp.token, cpu_before=0.0))
            self._begin(go)
        elif self._finishing:
            self.exit(ProcessExit(exit_code=0))

    def _begin(self, go: Go) -> None:
        self.enter(go)
        self.run_code()
        self.seams.witness.saw(Seen.WORKER if len(self._ran) == 1 else Seen.WORKER_AGAIN)
        wrong = [*self.seams.folders.begin(go), *self._leaks(go)]
        self._ran.add(go.stamp.token)
        self._current = Execution(self, go)
        self._current.begin(wrong)
        if self.seams.dies(Death.IN_JOB):
            self.kill()

    def enter(self, go: Go) -> None:
        """Give the process the id and the directory of a job."""
        self.job = go.stamp.token

    def run_code(self) -> None:
        """Note that code of the user runs."""
        if not self.has_run_code and not self.seams.is_stored(self.token):
            self.seams.witness.violated(f"{self.token} runs code of the user and its process is not stored")
        self.has_run_code = True

    def _leaks(self, go: Go) -> list[str]:
        """Return what a job sees that is not its own.

        It may see what earlier jobs of its worker wrote in the module.
        """
        agent_id, (left, run) = go.stamp.agent_id, self.left
        writer, self.memory["writer"] = self.memory.get("writer"), go.stamp.token
        wrong = [] if writer in self._ran else [f"{agent_id} sees what run {writer} wrote in its memory"]
        if left:
            wrong.append(f"{agent_id} runs in a process in which run {run} {left}")
        if self.job != go.stamp.token:
            wrong.append(f"{agent_id} has the id and the directory of run {self.job}")
        return wrong

    def returned(self, execution: Execution) -> None:
        token = execution.go.stamp.token
        if self.seams.entropy.pick(10) < LEFT_OF_10:
            self.left = (LEFT[self.seams.entropy.pick(len(LEFT))], token)
        change = self.difference()
        if change:
            self.seams.witness.saw(Seen.WORKER_LEFT)
        if change or execution.failed:
            self._tell(WorkerLeaves(token=token, difference=change))
            self.exit(ProcessExit(exit_code=0))
            return
        execution.end()
        self._current = None
        self._tell(JobEnded(token=token, cpu_seconds=0.0, rss_bytes=0))
        self.seams.later(FRAME_SECONDS, partial(self.seams.reports.output_ended, token))
        self._begin_next()

    def difference(self) -> str:
        """Return what the job has left behind in this process; "" if nothing."""
        return self.left[0]

    # Faults.

    def kill(self) -> None:
        """Kill the process. Only a job that runs may be charged for that."""
        for execution in self.executions():
            self.seams.witness.saw(Seen.WORKER_DIED)
            self.seams.witness.killed(execution.go)
        self.exit(ProcessExit(signal=SIGKILL))

"""The processes of a simulated launcher: coroutines that speak the real frames of `paglets.worker.protocol`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Protocol

from paglets.api.slots import Usage
from paglets.core.clock import Entropy
from paglets.core.errors import NoRoom
from paglets.core.record import from_json, to_json
from paglets.worker.launch import LaunchSpec, ProcessExit
from paglets.worker.protocol import LONG_ENTRIES, Deliver, EntryDone, Go
from tests.fakes.clock import FakeClock
from tests.simulator.folders import Folders
from tests.simulator.seen import Seen
from tests.simulator.templates import Memory
from tests.simulator.wishes import (
    Answer,
    Ask,
    Die,
    LoseZygote,
    Pause,
    ReadBlob,
    Routine,
    Stage,
    TakeAway,
    Wish,
    WriteFile,
)
from tests.simulator.witness import Witness

FRAME_SECONDS = (0.0002, 0.005)
RESIDENT_SECONDS = 0.1
"""The idle time after which a process counts as a resident. No message of a queue comes so late."""


class Scripts(Protocol):
    """Code of the simulated classes. `began` and `left` report processes, to detect violations.

    `wrong` describes files and code that differ from what the host promised.
    """

    def entry(self, go: Go) -> Routine: ...

    def handler(self, go: Go, state: dict[str, Any], deliver: Deliver) -> Routine: ...

    def began(self, go: Go, wrong: list[str]) -> None: ...

    def left(self, go: Go) -> None: ...


class Reports(Protocol):
    """The receiver of what happens to processes."""

    def started(self, token: str, pid: int, start_time: float) -> None: ...

    def frame(self, token: str, frame: dict[str, Any]) -> None: ...

    def output_ended(self, token: str) -> None: ...


class Death(Enum):
    """The moment at which a warm worker is killed: now, before it begins a further job, or in a job."""

    NOW = 0
    BEFORE_JOB = 1
    IN_JOB = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSeams:
    """The launcher of processes, which write to `folders`.

    `later` calls a function after a random time, and `wait` after a given time. `gone` reports the end of a process.
    `lose_zygote` kills the zygote of a process. `state_of` returns the state in the memory of a process that starts,
    and `frame` changes a frame of a process to its host. `is_stored` returns True if the row of a template or a warm
    worker is committed. `dies` returns True if a warm worker is to die at this moment.
    """

    clock: FakeClock
    entropy: Entropy
    scripts: Scripts
    folders: Folders
    witness: Witness
    reports: Reports
    later: Callable[[tuple[float, float], Callable[[], None]], None]
    wait: Callable[[float, Callable[[], None]], None]
    gone: Callable[[str, ProcessExit], None]
    lose_zygote: Callable[[Process], None]
    state_of: Callable[[Go], dict[str, Any]]
    frame: Callable[[dict[str, Any]], dict[str, Any]]
    is_stored: Callable[[str], bool]
    dies: Callable[[Death], bool]


class Process(ABC):
    """A process, from fork to exit. `memory` is that of its module. A frame takes `frame_seconds`."""

    frame_seconds = FRAME_SECONDS

    def __init__(self, seams: ProcessSeams, spec: LaunchSpec) -> None:
        self.seams = seams
        self.token = spec.token
        self.is_alone = spec.alone
        self.memory: Memory = {}
        self.over = False
        self._hears_at = self._says_at = 0.0

    @abstractmethod
    def take(self, frame: dict[str, Any]) -> None:
        """Handle a frame of the host."""

    @abstractmethod
    def returned(self, execution: Execution) -> None:
        """Go on after an execution whose code has returned."""

    @abstractmethod
    def executions(self) -> tuple[Execution, ...]:
        """Return the executions in this process that have not ended."""

    # The pipe keeps the order in both directions.

    def hear(self, frame: dict[str, Any]) -> None:
        self._hears_at = self._in_order(self._hears_at, lambda: None if self.over else self.take(frame))

    def say(self, frame: dict[str, Any]) -> None:
        self._act_in_order(partial(self.seams.reports.frame, self.token, frame))

    def _act_in_order(self, act: Callable[[], None]) -> None:
        self._says_at = self._in_order(self._says_at, act)

    def _in_order(self, last: float, act: Callable[[], None]) -> float:
        now = self.seams.clock.monotonic()
        at = max(last, now + self.seams.entropy.uniform(*self.frame_seconds))
        self.seams.wait(at - now, act)
        return at

    # Life.

    def fork(self, pid: int) -> None:
        if not self.over:
            self._act_in_order(partial(self.seams.reports.started, self.token, pid, float(pid)))

    def exit(self, how: ProcessExit) -> None:
        if not self.over:
            self.drop()
            self._act_in_order(partial(self.seams.gone, self.token, how))

    def drop(self) -> None:
        self.over = True
        for execution in self.executions():
            execution.end()


class Child(Process):
    """A process that serves one run."""

    def __init__(self, seams: ProcessSeams, spec: LaunchSpec) -> None:
        super().__init__(seams, spec)
        self._execution: Execution | None = None

    def take(self, frame: dict[str, Any]) -> None:
        if "go" in frame:
            go = from_json(Go, frame["go"])
            self._execution = Execution(self, go)
            self._execution.begin([*self.seams.folders.begin(go), *self._leaks(go)])
        elif self._execution is not None:
            self._execution.hear(frame)

    def _leaks(self, go: Go) -> list[str]:
        """Write to a variable of the module. Return a text if another process has written to it."""
        if go.entry != "attempt":
            return []
        writer, self.memory["writer"] = self.memory.get("writer"), go.stamp.token
        return [] if writer is None else [f"{go.stamp.agent_id} sees what run {writer} wrote in its memory"]

    def returned(self, execution: Execution) -> None:
        self.exit(ProcessExit(exit_code=0, usage=Usage(processes=1)))

    def executions(self) -> tuple[Execution, ...]:
        return () if self._execution is None else (self._execution,)


class Execution:
    """An entry of a paglet in a process, from the frame `go` on. `failed`: True once it has reported a fault."""

    def __init__(self, process: Process, go: Go) -> None:
        self.go = go
        self.failed = False
        self._process = process
        self._seams = process.seams
        self._state = self._seams.state_of(go)
        self._asking: dict[int, Routine] = {}
        self._asked = 0
        self._inbox: deque[Deliver] = deque()
        self._main: Routine | None = None
        self._handler: Routine | None = None
        self._finishing = False
        self._idle_since: float | None = None
        self._over = False

    def begin(self, wrong: list[str]) -> None:
        """Start the code. `wrong`: as in `Scripts`."""
        self._seams.scripts.began(self.go, wrong)
        if self.go.entry == "attempt":
            self._seams.witness.attempt_begins(self.go, self._process.is_alone)
        if self.go.entry != "message":
            self._main = self._seams.scripts.entry(self.go)
            self._resume(self._main, None)
        self._handle_next()

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._seams.scripts.left(self.go)

    def hear(self, frame: dict[str, Any]) -> None:
        if "deliver" in frame:
            self._inbox.append(from_json(Deliver, frame["deliver"]))
            self._handle_next()
        elif "finish" in frame:
            self._finishing = True
            self._handle_next()
        else:
            self._answered(frame)

    def _handle_next(self) -> None:
        if self._over or self._handler is not None:
            return
        if self.go.entry == "message" or self.go.entry in LONG_ENTRIES:
            if self._inbox:
                self._end_rest(Seen.RESIDENT)
                self._handler = self._seams.scripts.handler(self.go, self._state, self._inbox.popleft())
                self._resume(self._handler, None)
            elif self._finishing and self.go.entry == "message":
                self._end_rest(Seen.RESIDENT_ENDED)
                self._finishing = False
                self._main = _finish()
                self._resume(self._main, None)

    def _end_rest(self, what: Seen) -> None:
        """Note what ended the wait of a resident for its next message."""
        if self._idle_since is not None and self._now() - self._idle_since >= RESIDENT_SECONDS:
            self._seams.witness.saw(what)
        self._idle_since = None

    def _now(self) -> float:
        return self._seams.clock.monotonic()

    def _resume(self, routine: Routine, answer: Answer | None) -> None:
        if self._over:
            return
        try:
            wish = routine.send(answer) if answer is not None else next(routine)
        except StopIteration:
            self._finished(routine)
        except Die as death:
            self._process.exit(death.how)
        else:
            self._grant(routine, wish)

    def _grant(self, routine: Routine, wish: Wish) -> None:
        if isinstance(wish, Pause):
            self._seams.wait(wish.seconds, lambda: self._resume(routine, Answer()))
        elif isinstance(wish, Ask):
            self._ask(routine, wish)
        elif isinstance(wish, LoseZygote):
            self._seams.lose_zygote(self._process)
        elif isinstance(wish, Stage):
            # A sync takes a moment. A process that dies meanwhile leaves an unsynced file.
            answer = self._stage(wish, synced=False)
            self._seams.later(FRAME_SECONDS, lambda: self._staged(routine, wish, answer))
        else:
            answer = self._use_files(wish)
            self._seams.later(FRAME_SECONDS, lambda: self._resume(routine, answer))

    def _staged(self, routine: Routine, wish: Stage, answer: Answer) -> None:
        if not self._over:
            self._resume(routine, answer if answer.code else self._stage(wish, synced=True))

    def _stage(self, wish: Stage, synced: bool) -> Answer:
        try:
            self._seams.folders.blobs.stage(wish.name, wish.data, synced=synced)
        except NoRoom as error:
            return Answer(code=error.code)
        return Answer()

    def _use_files(self, wish: WriteFile | TakeAway | ReadBlob) -> Answer:
        folders = self._seams.folders
        if isinstance(wish, WriteFile):
            return Answer(value=folders.sources.write(wish.path, wish.data))
        if isinstance(wish, ReadBlob):
            return Answer(value=folders.read(wish.path))
        folders.sources.there.pop(wish.path, None)
        return Answer()

    def _ask(self, routine: Routine, wish: Ask) -> None:
        self._asked += 1
        self._asking[self._asked] = routine
        if isinstance(wish.args, EntryDone):
            self.failed = wish.args.fault is not None
        frame = {"op": wish.op, "id": self._asked, "stamp": to_json(self.go.stamp), "args": to_json(wish.args)}
        waits = not (isinstance(wish.args, EntryDone) and wish.args.report is not None)
        if not waits:
            del frame["id"], self._asking[self._asked]
        self._process.say(self._seams.frame(frame))
        if not waits:
            self._resume(routine, Answer())

    def _answered(self, frame: dict[str, Any]) -> None:
        routine = self._asking.pop(frame["reply"])
        error = frame.get("error")
        if error is not None and error["code"] == "fenced":
            self._process.exit(ProcessExit(exit_code=1))
        elif error is not None:
            self._resume(routine, Answer(code=error["code"]))
        else:
            self._resume(routine, Answer(value=frame["ok"]))

    def _finished(self, routine: Routine) -> None:
        if routine is self._main:
            self._process.returned(self)
        else:
            self._handler = None
            self._idle_since = self._now()
            self._handle_next()


def _finish() -> Routine:
    yield Ask(op="done", args=EntryDone())

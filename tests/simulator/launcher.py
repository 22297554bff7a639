"""A launcher whose processes are coroutines. It speaks the real frames of `paglets.worker.protocol`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from paglets.api.slots import Usage
from paglets.core.clock import Entropy
from paglets.core.errors import NoRoom
from paglets.core.record import from_json, to_json
from paglets.worker.launch import LaunchEvents, LaunchSpec, ProcessExit
from paglets.worker.protocol import LONG_ENTRIES, Deliver, EntryDone, Go
from tests.fakes.clock import FakeClock
from tests.simulator.folders import Folders
from tests.simulator.fuse import AT_FRAME, AT_LAUNCH, Fuse
from tests.simulator.seams import Alive
from tests.simulator.seen import Seen
from tests.simulator.tampering import Tampering
from tests.simulator.templates import Memory, Run, TemplateSeams
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
FORK_SECONDS = (0.001, 0.02)
KILL_SECONDS = (0.001, 0.3)
SIGKILL = 9
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
        """Create a launcher. `is_stored`: as in `templates.TemplateSeams`."""
        self.clock = clock
        self.entropy = entropy
        self.life = life
        self.events = events
        self.scripts = scripts
        self.folders = folders
        self.witness = witness
        self.tampering = tampering
        self._fuse = fuse
        self._children: dict[str, Child] = {}
        self._pids = 1000
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

    def start(self, spec: LaunchSpec) -> None:
        self._fuse.reach(AT_LAUNCH)
        child = Child(self, spec)
        self._children[spec.token] = child
        if not self.templates.take(child, spec):
            self._fork(child)

    def _fork(self, run: Run) -> None:
        self.later(FORK_SECONDS, partial(run.fork, self._new_pid()))

    def _new_pid(self) -> int:
        self._pids += 1
        return self._pids

    def send(self, token: str, frame: dict[str, Any]) -> None:
        self._fuse.reach(AT_FRAME)
        child = self._children.get(token)
        if child is not None:
            child.hear(frame)

    def end(self, token: str) -> None:
        child = self._children.get(token)
        if child is not None:
            self.later(KILL_SECONDS, lambda: child.exit(ProcessExit(signal=SIGKILL)))

    def allow_import(self, token: str) -> None:
        self.templates.allow_import(token)

    def end_idle(self) -> None:
        self.templates.end_idle()

    def close(self) -> None:
        self.power_off()

    def power_off(self) -> list[str]:
        """Drop all processes without reporting their ends. Return the tokens of templates that have run user code."""
        for child in self._children.values():
            child.drop()
        self._children.clear()
        return self.templates.power_off()

    def lose_zygote(self, culprit: Child | None = None) -> None:
        """End the zygote of `culprit` (None: the shared zygote) and all its children."""
        if culprit is not None and culprit.is_alone:
            culprit.exit(ProcessExit(launcher_lost=True, launcher_died=True, is_culprit=True))
            return
        if culprit is not None and self.templates.lose_of(culprit):
            return
        self.templates.lose_all()
        for child in list(self._children.values()):
            if not child.is_alone:
                child.exit(ProcessExit(launcher_lost=True, launcher_died=True))

    def later(self, bounds: tuple[float, float], action: Callable[[], None]) -> None:
        self.wait(self.entropy.uniform(*bounds), action)

    def wait(self, seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if self.life.alive:
                action()

        self.clock.call_at(self.clock.monotonic() + seconds, act)

    def gone(self, token: str, how: ProcessExit) -> None:
        child = self._children.pop(token, None)
        if child is not None:
            self.templates.ended(child)
        self.events.ended(token, how)


class Child:
    """A process, from fork to exit."""

    def __init__(self, launcher: SimLauncher, spec: LaunchSpec) -> None:
        self._launcher = launcher
        self._token = spec.token
        self.is_alone = spec.alone
        self.memory: Memory = {}
        self._go: Go | None = None
        self._state: dict[str, Any] = {}
        self._asking: dict[int, Routine] = {}
        self._asked = 0
        self._inbox: deque[Deliver] = deque()
        self._main: Routine | None = None
        self._handler: Routine | None = None
        self._finishing = False
        self._idle_since: float | None = None
        self._over = False
        self._hears_at = self._says_at = 0.0

    # The pipe keeps the order in both directions.

    def hear(self, frame: dict[str, Any]) -> None:
        self._hears_at = self._in_order(self._hears_at, partial(self._take, frame))

    def _say(self, act: Callable[[], None]) -> None:
        self._says_at = self._in_order(self._says_at, act)

    def _in_order(self, last: float, act: Callable[[], None]) -> float:
        launcher = self._launcher
        now = launcher.clock.monotonic()
        at = max(last, now + launcher.entropy.uniform(*FRAME_SECONDS))
        launcher.wait(at - now, act)
        return at

    # Life.

    def fork(self, pid: int) -> None:
        if not self._over:
            self._say(lambda: self._launcher.events.started(self._token, pid, float(pid)))

    def exit(self, how: ProcessExit) -> None:
        if self._over:
            return
        self.drop()
        self._say(lambda: self._launcher.gone(self._token, how))

    def drop(self) -> None:
        self._over = True
        if self._go is not None:
            self._launcher.scripts.left(self._go)
            self._go = None

    def _take(self, frame: dict[str, Any]) -> None:
        if self._over:
            return
        if "go" in frame:
            self._begin(from_json(Go, frame["go"]))
        elif "deliver" in frame:
            self._inbox.append(from_json(Deliver, frame["deliver"]))
            self._handle_next()
        elif "finish" in frame:
            self._finishing = True
            self._handle_next()
        else:
            self._answered(frame)

    def _begin(self, go: Go) -> None:
        self._go, self._state = go, self._launcher.tampering.state_of(go)
        self._launcher.scripts.began(go, [*self._launcher.folders.begin(go), *self._leaks(go)])
        if go.entry != "message":
            self._main = self._launcher.scripts.entry(go)
            self._resume(self._main, None)
        self._handle_next()

    def _leaks(self, go: Go) -> list[str]:
        """Write to a variable of the module. Return a text if another process has written to it."""
        if go.entry != "attempt":
            return []
        writer, self.memory["writer"] = self.memory.get("writer"), go.stamp.token
        return [] if writer is None else [f"{go.stamp.agent_id} sees what run {writer} wrote in its memory"]

    def _handle_next(self) -> None:
        if self._over or self._handler is not None or self._go is None:
            return
        if self._go.entry == "message" or self._go.entry in LONG_ENTRIES:
            if self._inbox:
                self._end_rest(Seen.RESIDENT)
                self._handler = self._launcher.scripts.handler(self._go, self._state, self._inbox.popleft())
                self._resume(self._handler, None)
            elif self._finishing and self._go.entry == "message":
                self._end_rest(Seen.RESIDENT_ENDED)
                self._finishing = False
                self._main = _finish()
                self._resume(self._main, None)

    def _end_rest(self, what: Seen) -> None:
        """Note what ended the wait of a resident for its next message."""
        if self._idle_since is not None and self._now() - self._idle_since >= RESIDENT_SECONDS:
            self._launcher.witness.saw(what)
        self._idle_since = None

    def _now(self) -> float:
        return self._launcher.clock.monotonic()

    def _resume(self, routine: Routine, answer: Answer | None) -> None:
        if self._over:
            return
        try:
            wish = routine.send(answer) if answer is not None else next(routine)
        except StopIteration:
            self._finished(routine)
        except Die as death:
            self.exit(death.how)
        else:
            self._grant(routine, wish)

    def _grant(self, routine: Routine, wish: Wish) -> None:
        if isinstance(wish, Pause):
            self._launcher.wait(wish.seconds, lambda: self._resume(routine, Answer()))
        elif isinstance(wish, Ask):
            self._ask(routine, wish)
        elif isinstance(wish, LoseZygote):
            self._launcher.lose_zygote(self)
        elif isinstance(wish, Stage):
            # A sync takes a moment. A process that dies meanwhile leaves an unsynced file.
            answer = self._stage(wish, synced=False)
            self._launcher.later(FRAME_SECONDS, lambda: self._staged(routine, wish, answer))
        else:
            answer = self._use_files(wish)
            self._launcher.later(FRAME_SECONDS, lambda: self._resume(routine, answer))

    def _staged(self, routine: Routine, wish: Stage, answer: Answer) -> None:
        if not self._over:
            self._resume(routine, answer if answer.code else self._stage(wish, synced=True))

    def _stage(self, wish: Stage, synced: bool) -> Answer:
        folders = self._launcher.folders
        try:
            folders.blobs.stage(wish.name, wish.data, synced=synced)
        except NoRoom as error:
            return Answer(code=error.code)
        return Answer()

    def _use_files(self, wish: WriteFile | TakeAway | ReadBlob) -> Answer:
        folders = self._launcher.folders
        if isinstance(wish, WriteFile):
            return Answer(value=folders.sources.write(wish.path, wish.data))
        if isinstance(wish, ReadBlob):
            return Answer(value=folders.read(wish.path))
        folders.sources.there.pop(wish.path, None)
        return Answer()

    def _ask(self, routine: Routine, wish: Ask) -> None:
        assert self._go is not None
        self._asked += 1
        self._asking[self._asked] = routine
        frame = {"op": wish.op, "id": self._asked, "stamp": to_json(self._go.stamp), "args": to_json(wish.args)}
        said = self._launcher.tampering.frame(frame)
        self._say(lambda: self._launcher.events.frame(self._token, said))

    def _answered(self, frame: dict[str, Any]) -> None:
        routine = self._asking.pop(frame["reply"])
        error = frame.get("error")
        if error is not None and error["code"] == "fenced":
            self.exit(ProcessExit(exit_code=1))
        elif error is not None:
            self._resume(routine, Answer(code=error["code"]))
        else:
            self._resume(routine, Answer(value=frame["ok"]))

    def _finished(self, routine: Routine) -> None:
        if routine is self._main:
            self.exit(ProcessExit(exit_code=0, usage=Usage(processes=1)))
        else:
            self._handler = None
            self._idle_since = self._now()
            self._handle_next()


def _finish() -> Routine:
    yield Ask(op="done", args=EntryDone())

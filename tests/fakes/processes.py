"""A `Launcher` whose children send and do only what a test makes them."""

from __future__ import annotations

from typing import Any

from paglets.core.record import from_json, to_json
from paglets.worker.frames import pack
from paglets.worker.launch import LaunchEvents, LaunchSpec, ProcessExit
from paglets.worker.protocol import Deliver, Go

SIGKILL = 9


class HandProcess:
    """A child. `heard` keeps the frames from its host. `ended` is set once its end is reported."""

    def __init__(self, events: LaunchEvents, spec: LaunchSpec, pid: int) -> None:
        self._events = events
        self._asked = 0
        self.spec = spec
        self.pid = pid
        self.heard: list[dict[str, Any]] = []
        self.told_to_end = False
        self.is_withdrawn = False
        self.ended = False

    def begin(self) -> None:
        """Report the start of the process, so that its host may send `go`."""
        self._events.started(self.spec.token, self.pid, float(self.pid))

    @property
    def go(self) -> Go:
        """Return the `go` frame of the host. Fail if there is none."""
        (frame,) = [frame for frame in self.heard if "go" in frame]
        return from_json(Go, frame["go"])

    @property
    def deliveries(self) -> list[Deliver]:
        return [from_json(Deliver, frame["deliver"]) for frame in self.heard if "deliver" in frame]

    @property
    def is_to_finish(self) -> bool:
        return {"finish": True} in self.heard

    def ask(self, op: str, args: Any, **stamp: Any) -> int:
        """Send a request to the host and return its number for `reply`. `stamp` replaces fields of the stamp."""
        self._asked += 1
        tree = {**to_json(self.go.stamp), **stamp}
        self._events.frame(self.spec.token, {"op": op, "id": self._asked, "stamp": tree, "args": to_json(args)})
        return self._asked

    def tell(self, op: str, args: Any) -> None:
        """Send a request that has no reply."""
        tree = {"op": op, "stamp": to_json(self.go.stamp), "args": to_json(args)}
        self._events.frame(self.spec.token, tree)

    def reply(self, number: int) -> dict[str, Any]:
        """Return the reply to this request. Fail if there is none yet."""
        (frame,) = [frame for frame in self.heard if frame.get("reply") == number]
        return frame

    def exit(self, code: int | None = 0, **how: Any) -> None:
        """End with an exit code, or as `ProcessExit` says."""
        if not self.ended:
            self.ended = True
            self._events.ended(self.spec.token, ProcessExit(exit_code=None if "signal" in how else code, **how))


class HandLauncher:
    """A `worker.launch.Launcher`. A process that is told to end dies at once unless `is_stubborn`."""

    def __init__(self, events: LaunchEvents) -> None:
        self._events = events
        self.processes: list[HandProcess] = []
        self.is_stubborn = False
        self.ends_of_idle_processes = 0

    def start(self, spec: LaunchSpec) -> None:
        self.processes.append(HandProcess(self._events, spec, 1001 + len(self.processes)))

    def send(self, token: str, frame: dict[str, Any]) -> None:
        pack(frame)  # Raise the errors of a real launcher.
        for process in self._alive(token):
            process.heard.append(frame)

    def end(self, token: str) -> None:
        for process in self._alive(token):
            process.told_to_end = True
            if not self.is_stubborn:
                process.exit(signal=SIGKILL)

    def withdraw(self, token: str) -> None:
        for process in self._alive(token):
            process.is_withdrawn = True

    def allow_import(self, token: str) -> None:
        """Do nothing: this launcher has no templates."""

    def end_idle(self) -> None:
        """Only count the requests, since this launcher has no idle processes."""
        self.ends_of_idle_processes += 1

    def close(self) -> None:
        for process in self.processes:
            process.ended = True

    def _alive(self, token: str) -> list[HandProcess]:
        return [process for process in self.processes if process.spec.token == token and not process.ended]

    def of(self, agent_id: str) -> list[HandProcess]:
        """Return the processes of a paglet, oldest first."""
        return [process for process in self.processes if process.spec.agent_id == agent_id]

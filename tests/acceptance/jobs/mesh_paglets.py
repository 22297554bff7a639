"""Paglets that the tests create, move, call and dispose of."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState
from paglets.core.messages import Message
from paglets.core.refs import ProxyRef
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState
from paglets.system.services import Operation, ServiceContract, ServicePaglet


@dataclass(kw_only=True)
class NotesState(PagletState):
    log: list[str] = field(default_factory=list)
    total: int = 0
    path: str = ""


class Notes(Paglet[NotesState]):
    """A paglet that records its hooks and acts on messages. The handler of kind `add` is `do_add`."""

    State = NotesState

    def on_creation(self) -> None:
        self._note("creation")

    def on_dispatching(self) -> None:
        self._note("dispatching")

    def on_arrival(self) -> None:
        self._note("arrival")

    def on_disposing(self) -> None:
        self._note("disposing")
        if self.state.path:
            draft = Path(f"{self.state.path}.new")
            draft.write_text("\n".join(self.state.log))
            draft.rename(self.state.path)

    def _note(self, what: str) -> None:
        self.state.log.append(f"{what} at {self.context.name}")

    def handle_message(self, message: Message) -> Any:
        handler = getattr(self, f"do_{message.kind}", None)
        return self.not_handled(message) if handler is None else handler(**message.args)

    def do_log(self) -> list[str]:
        return self.state.log

    def do_add(self, amount: int) -> int:
        self.state.total += amount
        return self.state.total

    def do_add_slowly(self, amount: int, seconds: float) -> int:
        time.sleep(seconds)
        return self.do_add(amount)

    def do_pid(self) -> int:
        return os.getpid()

    def do_echo(self, value: Any) -> Any:
        return value

    def do_keep(self, key: str, value: Any) -> None:
        self.storage[key] = value

    def do_kept(self) -> dict[str, Any]:
        return dict(self.storage)

    def do_go(self, host: str) -> None:
        self.dispatch_to(host)

    def do_end(self) -> None:
        self.dispose()

    def do_wait(self, least: int) -> int:
        self.wait_state(lambda state: state.total >= least)
        return self.state.total

    def do_raise(self) -> None:
        self.state.total = -1
        raise ValueError("this handler raises")

    def do_crash(self) -> None:
        self.state.total = -1
        os._exit(4)

    def do_tell(self, target: ProxyRef, amount: int) -> None:
        self.post(target, Message("add", {"amount": amount}))

    def do_ask(self, target: ProxyRef, amount: int) -> int:
        return self.call(target, Message("add", {"amount": amount}))

    def do_scratch(self) -> str:
        (self.work_dir() / "note").write_text("here")
        return str(self.work_dir())


@dataclass(frozen=True)
class Inner:
    raw: bytes
    pair: tuple[int, str]


@dataclass
class Outer:
    name: str
    parts: list[Inner]
    by_name: dict[str, Inner]
    tags: frozenset[str]


@dataclass(kw_only=True)
class TickerState(PagletState):
    ticks: int = 0
    steps: int = 0
    runs: int = 0
    stopped: bool = False


class Ticker(Paglet[TickerState]):
    """A paglet that counts in `run` until a message stops it. Handlers run at the same time."""

    State = TickerState

    def run(self) -> None:
        with self.locked_state() as state:
            state.runs += 1
        while True:
            with self.locked_state() as state:
                if state.stopped:
                    return
                state.ticks += 1
                state.steps += 1
            time.sleep(0.001)

    def handle_message(self, message: Message) -> Any:
        if message.kind == "add":
            self.state.ticks += message["amount"]
        elif message.kind == "stop":
            self.state.stopped = True
        elif message.kind == "go":
            self.dispatch_to(message["host"])
        return {"ticks": self.state.ticks, "steps": self.state.steps, "runs": self.state.runs}


@dataclass
class AddRequest:
    left: int
    right: int


@dataclass
class AddReply:
    total: int


ADDER = ServiceContract("adder", Operation("add", AddRequest, AddReply))


class Adder(ServicePaglet[PagletState]):
    contract = ADDER

    def add(self, request: AddRequest) -> AddReply:
        return AddReply(request.left + request.right)


@dataclass(kw_only=True)
class TravellerState(CollectingComputeJobState):
    path: str = ""


class Traveller(CollectingComputeJobPaglet[TravellerState]):
    """A job that goes home after its run."""

    State = TravellerState

    def run_compute_job(self) -> None:
        self._write(f"ran at {self.context.name}")
        self.dispatch_to(self.state.home_host_name)

    def on_arrival(self) -> None:
        self._write(f"arrived at {self.context.name} {self.state.compute_status}")

    def _write(self, line: str) -> None:
        with open(self.state.path, "a") as file:
            file.write(line + "\n")


@dataclass(kw_only=True)
class TellerState(CollectingComputeJobState):
    target: ProxyRef | None = None
    path: str = ""


class Teller(CollectingComputeJobPaglet[TellerState]):
    """A job that posts in its first attempt and then waits to be killed. Its second attempt does nothing."""

    State = TellerState

    def run_compute_job(self) -> None:
        if self.state.attempt == 1 and self.state.target is not None:
            self.post(self.state.target, Message("add", {"amount": 1}))
            Path(self.state.path).touch()
            time.sleep(600)

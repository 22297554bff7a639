"""Paglets for tests with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import HookEvent, Paglet, PagletState
from paglets.core.errors import Conflict
from paglets.core.messages import Message
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


@dataclass(kw_only=True)
class PlainState(PagletState):
    number: int = 0
    words: list[str] = field(default_factory=list)
    secret: Any = None
    path: str = ""


class Plain(Paglet[PlainState]):
    """A paglet whose subclasses override the entry that a test needs."""

    State = PlainState

    def compute_attempt(self) -> None:
        """Do nothing."""


class Counts(Plain):
    def on_creation(self) -> None:
        self.state.number += 1
        self.storage["seen"] = ("a", 1)
        self.post(self.ref, Message("later", {"data": b"\x00\xff"}))
        print("counted")

    def run(self) -> None:
        """Do nothing. The override makes `run` the next entry."""


class LimitsItsHooks(Plain):
    hook_timeout_seconds = 5

    def on_creation(self) -> None:
        self.state.number += 1


class Reports(Plain):
    def compute_attempt(self) -> None:
        self.state.number = 7
        self.checkpoint()
        first = self.context.report({"success": True, "result": {"raw": b"ab"}})
        second = self.context.report({"success": True, "result": {}})
        self.state.words = [str(first), str(second)]


class CannotTravel(Plain):
    def compute_attempt(self) -> None:
        self.context.report({"success": True, "result": {"it": object()}})


class Raises(Plain):
    def compute_attempt(self) -> None:
        print("before it broke", file=sys.stderr)
        self.state.number = 5
        raise ValueError("no \udcff such thing")


class RaisesOurs(Plain):
    def compute_attempt(self) -> None:
        raise Conflict("two of them")


class KeepsWhatCannotTravel(Plain):
    def on_creation(self) -> None:
        self.state.secret = object()


class Exits(Plain):
    def compute_attempt(self) -> None:
        sys.exit(self.state.number)


class ExitsHard(Plain):
    def compute_attempt(self) -> None:
        os._exit(3)


class Segfaults(Plain):
    def compute_attempt(self) -> None:
        print("last words", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)


class Looks(Plain):
    """A job that reports the attributes of its process."""

    def compute_attempt(self) -> None:
        descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        self.context.report(
            {
                "success": True,
                "result": {
                    "descriptors": [number for number in descriptors if os.path.exists(f"/proc/self/fd/{number}")],
                    "environment": {name: os.environ.get(name) for name in ("PAGLETS_JOB_ID", "PAGLETS_ATTEMPT", "X")},
                    "marker": os.environ["PAGLETS_RUN"],
                    "cwd": os.getcwd(),
                    "stdin": sys.stdin.read(),
                    "leads": os.getsid(0) == os.getpid(),
                    "cores": sorted(os.sched_getaffinity(0)),
                    "terminates": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
                },
            }
        )


SLEEPER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"


def start_sleeper(pid_file: str, **more: Any) -> None:
    subprocess.Popen([sys.executable, "-c", SLEEPER, pid_file], **more)
    until_pids(pid_file, 1)


def until_pids(pid_file: str, count: int) -> list[int]:
    while True:
        path = Path(pid_file)
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [int(line) for line in lines]
        time.sleep(0.005)


def fork_into_session(act: Any) -> None:
    """Become a daemon in the usual way: two forks and a new session."""
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() == 0:
            act()
        os._exit(0)
    os.waitpid(first, 0)


def note_pid_and_sleep(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)
    os._exit(0)


class LeavesDaemons(Plain):
    """A job whose descendants outlive it. The one whose pid is in `path`.bare has cleared its environment as well."""

    def compute_attempt(self) -> None:
        path, bare = self.state.path, self.state.path + ".bare"
        fork_into_session(lambda: os.execve(sys.executable, [sys.executable, "-c", SLEEPER, bare], {}))
        fork_into_session(lambda: note_pid_and_sleep(path))
        start_sleeper(path)
        start_sleeper(path, start_new_session=True)
        until_pids(path, 3)
        until_pids(bare, 1)


class StaysWithDaemons(LeavesDaemons):
    def compute_attempt(self) -> None:
        super().compute_attempt()
        print("all there", file=sys.stderr)
        time.sleep(600)


class IgnoresSigterm(Plain):
    def compute_attempt(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note_pid_and_sleep(self.state.path)


class SignalsItsParent(Plain):
    """A job that sends signal `number` to its parent and then waits."""

    def compute_attempt(self) -> None:
        os.kill(os.getppid(), self.state.number)
        note_pid_and_sleep(self.state.path)


class CleansUp(Plain):
    def compute_attempt(self) -> None:
        def clean(*_: Any) -> None:
            Path(self.state.path + ".clean").touch()
            sys.exit(9)

        signal.signal(signal.SIGTERM, clean)
        note_pid_and_sleep(self.state.path)


class ClosesDescriptors(Plain):
    def compute_attempt(self) -> None:
        os.closerange(0, 3)
        self.context.report({"success": True, "result": {"still": "here"}})


class ForksAndReturns(Plain):
    """A job whose fork returns into code of paglets."""

    def compute_attempt(self) -> None:
        child = os.fork()
        if child == 0:
            return
        os.waitpid(child, 0)
        self.context.report({"success": True, "result": {"by": "the first process"}})


class BadFrame(Plain):
    def compute_attempt(self) -> None:
        os.write(3, b"\xff\xff\xff\xff and so on")
        time.sleep(600)


class Writes(Plain):
    """A job that uses known amounts of memory, CPU and disk."""

    def compute_attempt(self) -> None:
        block = bytearray(60_000_000)
        Path("big.bin").write_bytes(b"x" * 3_000_000)
        started = time.process_time()
        while time.process_time() - started < 0.2:
            block[0] += 0
        note_pid_and_sleep(self.state.path)


class LeavesThreads(Plain):
    def compute_attempt(self) -> None:
        threading.Thread(target=time.sleep, args=(600,)).start()


# Messages.


class Adds(Plain):
    def handle_message(self, message: Message) -> Any:
        if message.kind == "add":
            self.state.number += message["by"]
            self.storage["last"] = message["by"]
            if message.get("fail"):
                raise ValueError("told to fail")
            return self.state.number
        if message.kind == "wait":
            self.state.words.append("waiting")
            reached = self.wait_state(lambda state: state.number >= message["least"], message.get("timeout"))
            return ("reached", reached)
        if message.kind == "keys":
            return (list(self.storage), self.storage.scan("k", after="k1", limit=3), "last" in self.storage)
        if message.kind == "storage":
            self.storage["k2"] = "new"
            del self.storage["k3"]
            self.storage["k35"] = {"x": (1, 2)}
            return self.handle_message(Message("keys"))
        if message.kind == "move":
            self.dispatch_to("elsewhere")
        if message.kind == "exit":
            sys.exit(4)
        return self.not_handled(message)


class Waits(Adds):
    """A paglet with handlers that run during `run`."""

    def run(self) -> None:
        with self.locked_state() as state:
            state.words.append("locked")
        self.storage["at once"] = True
        if self.wait_state(lambda state: state.number >= 5, 20):
            self.state.words.append("reached")


class Calls(Plain):
    def on_creation(self) -> None:
        other = self.context.proxy("friend")
        self.state.secret = other.call("sum", left=1, right=(2, 3))
        made = self.context.create(Plain, PlainState(number=2), name="made")
        self.state.words = [made.agent_id, self.context.name, self.context.address, self.agent_id]
        self.state.words += [host.name for host in self.context.hosts()]
        try:
            other.call("fail")
        except Conflict as error:
            self.state.words.append(error.message)


class TakesEvents(Plain):
    def on_arrival(self, event: HookEvent) -> None:  # type: ignore[override]
        self.state.words = [event.kind, str(event.from_host)]
        self.context.notify_user("warning", "arrived", event.kind)

    def on_disposing(self, event: HookEvent, more: int) -> None:  # type: ignore[override]
        self.state.words = ["never"]


class NeverRuns(CollectingComputeJobPaglet[CollectingComputeJobState]):
    async def run_compute_job(self) -> None:  # type: ignore[override]
        raise AssertionError


class Warned(CollectingComputeJobPaglet[CollectingComputeJobState]):
    def run_compute_job(self) -> int:
        self.report_compute_success("mine")
        return 5


class ReturnsItsKey(CollectingComputeJobPaglet[CollectingComputeJobState]):
    def run_compute_job(self) -> str:
        return self.state.job_key

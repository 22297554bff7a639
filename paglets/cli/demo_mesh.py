"""Three hosts of the demonstration: real processes in a folder of their own, all of which goes when it ends."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from paglets.cli.background import spawn_detached
from paglets.client.host_client import HostClient
from paglets.core.errors import PagletsError, StartFailed, TimedOut
from paglets.core.text import printable
from paglets.program import child_environment, keep_copy, this_program
from paglets.wire.keys import HOME_VARIABLE, KEY_VARIABLE
from paglets.wire.local_hosts import running_hosts

T = TypeVar("T")

WAIT_SECONDS = 60.0
"""For any one thing, all of which take a second or two on an idle machine."""

LOOK_SECONDS = 0.05
END_SECONDS = 10.0
"""For a host to end its jobs and itself; then it is killed."""

REMOVE_TRIES = 50
TAIL_CHARACTERS = 1000

HAS_SIGKILL = hasattr(signal, "SIGKILL")
TOGETHER_SECONDS = 1.0
"""Signals so close to one another are one wish: the second must not disturb what the first has begun."""

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """A signal asked this process to end. No `except Exception` stops it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class SignalGuard:
    """While entered, a signal that ends this process is raised as Interrupted: at once, or after what is `held`."""

    def __init__(self) -> None:
        self._holds = 0
        self._waiting = 0
        self._raised_at = -math.inf
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalGuard:
        for number in ENDING:
            # What nohup has us ignore stays so.
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def held(self) -> Iterator[None]:
        """For what must not be left half done."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._waiting and not self._holds:
            self._raise(self._waiting)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._waiting = number
        elif time.monotonic() - self._raised_at > TOGETHER_SECONDS:
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        self._waiting = 0
        self._raised_at = time.monotonic()
        raise Interrupted(number)


class DemoMesh:
    """Hosts in a new folder, their PAGLETS_HOME, with a key of its own. Leaving it ends them and removes the folder."""

    def __init__(self, signals: SignalGuard, *, keep: bool) -> None:
        self._signals = signals
        self._keep = keep
        self._folder: Path | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> DemoMesh:
        # For a signal in the very moment before `close` holds them.
        atexit.register(self.close)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        atexit.unregister(self.close)

    def close(self) -> None:
        """Nothing ends it half way; it takes END_SECONDS and a little at most."""
        with self._signals.held():
            self._end_all()
            if self._folder is not None and not self._keep:
                _remove(self._folder)

    def left(self) -> str:
        """What is left of it after `close`."""
        if self._folder is None or not self._folder.exists():
            return "the hosts have ended, and nothing is left of them"
        return f"the hosts have ended; their data is in {printable(self._folder)}"

    @property
    def folder(self) -> Path:
        """Made when it is first asked for."""
        if self._folder is None:
            with self._signals.held():
                self._folder = Path(tempfile.mkdtemp(prefix="paglets-demo-")).resolve()
        return self._folder

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, name: str, *flags: str) -> None:
        """Start a host, at any free port; `client` waits for it."""
        # This file may be replaced while we run, as by a new build; the hosts stay with what we are.
        program = this_program()
        program = keep_copy(program, self.home) if program.is_archive else program
        words = ("host", "--name", name, "--port", "0", "--cores", "1", *flags)
        environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
        with self._log(name).open("ab") as log, self._signals.held():
            # Ctrl-C is for us alone: we end the hosts in good order.
            self._running[name] = spawn_detached(
                program,
                words,
                child_environment(program, environment | {HOME_VARIABLE: str(self.home)}),
                output=log.fileno(),
                folder=self.folder,
            )

    def client(self, name: str) -> HostClient:
        """A client of that host, once it answers. Raises StartFailed, TimedOut."""
        url = wait_for(lambda: self._url(name), f"host {name} to start")
        return HostClient(url, environ={HOME_VARIABLE: str(self.home)})

    def _url(self, name: str) -> str:
        """The address that the process wrote down when it was ready."""
        process = self._running[name]
        if process.poll() is not None:
            said = self._log(name).read_text("utf-8", "replace")[-TAIL_CHARACTERS:].strip()
            raise StartFailed(f"host {name} ended with exit code {process.returncode}: {said}")
        return next((host.url for host in running_hosts(self.home) if host.pid == process.pid), "")

    def kill(self, name: str) -> int:
        """End a host without any warning; gives the number of the process that was."""
        process = self._running[name]
        process.kill()
        process.wait()
        del self._running[name]
        return process.pid

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _end_all(self) -> None:
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + END_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _remove(folder: Path) -> None:
    """The processes of a killed host end by themselves a moment after it, and may still write."""
    for _ in range(REMOVE_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(LOOK_SECONDS)


def wait_for(look: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """What `look` gives once that is true. Troubles of hosts that come and go are waited out. Raises TimedOut."""
    end = time.monotonic() + seconds
    last = ""
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
        except StartFailed:
            raise
        except PagletsError as error:
            last = f" (last: {error.message})"
        time.sleep(LOOK_SECONDS)
    raise TimedOut(f"waited {seconds:g} s for {what}{last}: is this machine very busy?")

"""The hosts of `paglets demo`: real processes with their data in a temporary folder."""

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
from paglets.core.unpacked import HOME_VARIABLE
from paglets.program import child_environment, this_program
from paglets.wire.keys import KEY_VARIABLE
from paglets.wire.local_hosts import running_hosts

T = TypeVar("T")

WAIT_SECONDS = 60.0
"""The timeout for one step of the demo. Each step takes 1 to 2 s on an idle machine."""

LOOK_SECONDS = 0.05
END_SECONDS = 10.0
"""The time after SIGTERM until a host is killed. It is long enough for the host to end its jobs and exit."""

REMOVE_TRIES = 50
TAIL_CHARACTERS = 1000

HAS_SIGKILL = hasattr(signal, "SIGKILL")
TOGETHER_SECONDS = 1.0
"""Further signals within this time after a signal are ignored, so that they do not interrupt the cleanup."""

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """The exception for a signal that asks this process to end. No `except Exception` catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class SignalGuard:
    """A context manager that raises Interrupted on a terminating signal: at once, or at the end of a `held` block."""

    def __init__(self) -> None:
        self._holds = 0
        self._waiting = 0
        self._raised_at = -math.inf
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalGuard:
        for number in ENDING:
            # Do not handle a signal that is already ignored, such as SIGHUP under nohup.
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Return a context that delays signals until its body is complete."""
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
    """A mesh in a temporary folder, with its own PAGLETS_HOME and key.

    At the end of the context, the hosts end. The folder is removed, unless `keep` is True.
    """

    def __init__(self, signals: SignalGuard, *, keep: bool) -> None:
        self._signals = signals
        self._keep = keep
        self._folder: Path | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> DemoMesh:
        # Also call `close` at exit, in case a signal interrupts `__exit__` before `close` holds signals.
        atexit.register(self.close)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        atexit.unregister(self.close)

    def close(self) -> None:
        """End all hosts, and remove the folder unless it is to be kept. This takes about END_SECONDS at most."""
        with self._signals.held():
            self._end_all()
            if self._folder is not None and not self._keep:
                _remove(self._folder)

    def end_text(self) -> str:
        """Return a message about the hosts and their data after `close`."""
        if self._folder is None or not self._folder.exists():
            return "stopped the hosts and removed their data"
        return f"stopped the hosts; their data is in {printable(self._folder)}"

    @property
    def folder(self) -> Path:
        """The temporary folder, created on first use."""
        if self._folder is None:
            with self._signals.held():
                self._folder = Path(tempfile.mkdtemp(prefix="paglets-demo-")).resolve()
        return self._folder

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, name: str, *flags: str) -> None:
        """Start a host on a free port. Return at once: `client` waits until the host is ready."""
        program = this_program()
        words = ("host", "--name", name, "--port", "0", "--cores", "1", *flags)
        environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
        with self._log(name).open("ab") as log, self._signals.held():
            # The hosts are detached, so Ctrl-C reaches only this process, which ends them in order.
            self._running[name] = spawn_detached(
                program,
                words,
                child_environment(program, environment | {HOME_VARIABLE: str(self.home)}),
                output=log.fileno(),
                folder=self.folder,
            )

    def client(self, name: str) -> HostClient:
        """Wait until a host is ready, and return a client that is connected to it. Raises StartFailed, TimedOut."""
        url = wait_for(lambda: self._url(name), f"host {name} to start")
        return HostClient(url, environ={HOME_VARIABLE: str(self.home)})

    def _url(self, name: str) -> str:
        """Return the URL in the run file of a host, or "" if the host is not ready. Raises StartFailed if it exited."""
        process = self._running[name]
        if process.poll() is not None:
            said = self._log(name).read_text("utf-8", "replace")[-TAIL_CHARACTERS:].strip()
            raise StartFailed(f"host {name} ended with exit code {process.returncode}: {said}")
        return next((host.url for host in running_hosts(self.home) if host.pid == process.pid), "")

    def kill(self, name: str) -> int:
        """Kill a host and return its process id."""
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
    """Remove a folder. Retry, because jobs of a killed host end a moment after the host and may still write files."""
    for _ in range(REMOVE_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(LOOK_SECONDS)


def wait_for(look: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Call `look` until it returns a true value, and return the value.

    If `look` raises a PagletsError other than StartFailed, call it again. Raises TimedOut after `seconds`.
    """
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
            last = f" (last error: {error.message})"
        time.sleep(LOOK_SECONDS)
    raise TimedOut(f"waited {seconds:g} s for {what}{last}", hint=["repeat this when the machine is less busy"])

"""A mesh of real hosts: the built archive, separate processes, an empty folder, an empty PAGLETS_HOME.

`PAGLETS_PYZ` names the archive (else it is built once for all tests), `PAGLETS_PYTHON` the interpreter that runs it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from build_zipapp import ROOT
from paglets.core.errors import PagletsError
from paglets.core.unpacked import MANIFEST
from paglets.remote.client import HostClient
from tests.fakes import waiting

JOBS = Path(__file__).parent / "jobs"
"""The folder of the modules whose classes the tests' hosts run."""

if str(JOBS) not in sys.path:
    sys.path.append(str(JOBS))

MARK = "PAGLETS_TEST_MESH"
"""A variable in the environment of every process of a mesh. Its value is unique to the mesh."""

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""The time limit of all waits. It only distinguishes hanging from slow.

No passing test waits this long. A test of a time limit has its own constant.
"""

END_SECONDS = 20.0
"""The time limit for a host to stop: twice the limit that it gives the processes of its jobs."""

COMMAND_SECONDS = 180.0
LOG_TAIL_CHARACTERS = 6000

OF_THE_USER = ("PYTHON", "PAGLETS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
"""The prefixes of variables that configure Python, paglets or the terminal for the person who runs the tests."""


def wait_until(condition: Callable[[], T], *, timeout_seconds: float = PATIENCE_SECONDS, what: str = "") -> T:
    """Return the first true value of `condition()`; see `tests.fakes.waiting`."""
    return waiting.wait_until(condition, timeout_seconds=timeout_seconds, what=what)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command or script that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return the parsed JSON of stdout."""
        assert self.code == 0, f"exit code {self.code}: {self.err}"
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """Return the one error line of stderr. All other lines must be hints."""
        lines = [line for line in self.err.splitlines() if not line.startswith(("next: ", "hint: "))]
        assert len(lines) == 1, f"expected one line on stderr, got {self.err!r}"
        assert self.out == "", f"expected nothing on stdout, got {self.out!r}"
        return lines[0]


@dataclass(eq=False, kw_only=True)
class HostProcess:
    """A host, running or ended. `url` and `port` stay the same over restarts."""

    mesh: Mesh
    name: str
    arguments: list[str]
    home: Path
    port: int = 0
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    client: HostClient = field(init=False)

    @property
    def data(self) -> Path:
        return self.home / "hosts" / self.name

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.mesh.logs / f"{self.name}.{self.starts}"

    def spawn(self, **environment: object) -> None:
        """Start the process; `wait_ready` waits for it."""
        self.starts += 1
        command = ["host", "--name", self.name, "--port", str(self.port), *self.arguments]
        self.process = self.mesh.spawn(*command, home=self.home, output=self.log, **environment)

    def wait_ready(self) -> None:
        """Wait for the file in `run/` that this process writes, and for an answer at its address."""
        self.url = wait_until(self._said_url, what=f"{self.name} to be ready")
        self.port = int(self.url.rpartition(":")[2])
        self.client = HostClient(self.url, environ={"PAGLETS_HOME": str(self.home)}, timeout=PATIENCE_SECONDS)
        wait_until(self.answers, what=f"an answer of {self.name}")

    def _said_url(self) -> str:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise AssertionError(f"{self.name} ended with {code}: {self.log.read_text()}")
        with suppress(OSError, ValueError):
            told = json.loads((self.home / "run" / f"{self.name}.json").read_text())
            if told["pid"] == self.process.pid:
                return str(told["url"])
        return ""

    def answers(self) -> bool:
        with suppress(PagletsError):
            return self.client.identity().name == self.name
        return False

    def restart(self, **environment: object) -> None:
        """Restart the ended host with the same arguments and port."""
        self.spawn(**environment)
        self.wait_ready()

    def kill(self) -> None:
        """Kill the host with SIGKILL."""
        self.end_by(signal.SIGKILL)

    def stop(self) -> str:
        """Stop the host with SIGTERM, as a person does. Return its output. It must end successfully and in time."""
        assert self.end_by(signal.SIGTERM) == 0, self.log.read_text()
        return self.log.read_text()

    def end_by(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait_ended(END_SECONDS)

    def wait_ended(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the host has ended by itself. Return its exit code."""
        assert self.process is not None
        code = self.process.wait(timeout_seconds)
        self.process = None
        self.client.close()
        return code

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return rows of the host's store."""
        with _reading(self.data / "paglets.db") as base:
            return base.execute(sql, values).fetchall()

    def row_counts(self) -> dict[str, int]:
        """Return the number of rows of every table."""
        names = [row["name"] for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: self.rows(f"SELECT count(*) AS n FROM {name}")[0]["n"]
            for name in sorted(names)
            if not name.startswith("sqlite_")
        }

    def log_text(self) -> str:
        """Return the text of the host's log file."""
        return (self.data / "host.log").read_text(errors="replace")


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    base.row_factory = sqlite3.Row
    try:
        yield base
    finally:
        base.close()


class Mesh:
    """A mesh of hosts, commands and scripts of one user on one machine, in `folder`."""

    def __init__(self, folder: Path, archive: Path, python: str) -> None:
        self.archive = archive
        self.python = python
        self.mark = secrets.token_hex(8)
        self.work = folder / "empty"
        self.logs = folder / "logs"
        self.home = folder / "home"
        self.folder = folder
        self.hosts: dict[str, HostProcess] = {}
        self._others: list[subprocess.Popen[bytes]] = []
        for each in (self.work, self.logs):
            each.mkdir(parents=True)

    def __getitem__(self, name: str) -> HostProcess:
        return self.hosts[name]

    # Processes.

    def environment(self, home: Path | None = None, **more: object) -> dict[str, str]:
        """Return an environment without settings of this Python, other paglets or a terminal, but with the mark and
        `more`."""
        share_unpacked(self.archive, self.python, home or self.home)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_USER)}
        given = {"PAGLETS_HOME": home or self.home, "PYTHONPATH": JOBS, "HOME": self.work, MARK: self.mark, **more}
        return kept | {name: str(value) for name, value in given.items()}

    def spawn(
        self,
        *command: object,
        home: Path | None = None,
        output: Path,
        **environment: object,
    ) -> Any:
        """Start `python paglets.pyz COMMAND` in the background. Its output goes to the file `output`."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                self.command_line([str(word) for word in command]),
                cwd=self.work,
                env=self.environment(home, **environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._others.append(process)
        return process

    def command_line(self, command: list[str]) -> list[str]:
        """Return the words that start this command of the archive in the background."""
        return [self.python, str(self.archive), *command]

    def paglets(self, *command: object, home: Path | None = None, **environment: object) -> Finished:
        """Run `python paglets.pyz COMMAND` to its end."""
        return self._run(self.archive, *command, home=home, **environment)

    def script(self, path: Path, *arguments: object, **environment: object) -> Finished:
        """Run a script of a user who has only the archive: PYTHONPATH names it, and the folder of the jobs."""
        given = {"PYTHONPATH": f"{self.archive}{os.pathsep}{JOBS}"} | environment
        return self._run(path, *arguments, home=None, **given)

    def _run(self, *words: object, home: Path | None, **environment: object) -> Finished:
        done = subprocess.run(
            [self.python, *map(str, words)],
            cwd=self.work,
            env=self.environment(home, **environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Finished(code=done.returncode, out=done.stdout, err=done.stderr)

    # Hosts.

    def host(self, name: str, *arguments: object, home: Path | None = None) -> HostProcess:
        """Create a host with these arguments without starting it."""
        words = [str(word) for word in arguments]
        made = HostProcess(mesh=self, name=name, arguments=words, home=home or self.home, port=free_port())
        self.hosts[name] = made
        return made

    def start(self, name: str, *arguments: object, home: Path | None = None) -> HostProcess:
        """Start a host and wait until it is ready."""
        made = self.host(name, *arguments, home=home)
        made.spawn()
        made.wait_ready()
        return made

    def start_three(self, *, cores: int = 4, gpus: int = 0) -> None:
        """Start the hosts of the specification, and wait until each knows the others."""
        common = ("--mesh-version", "analysis", "--cpu-cores", cores)
        laptop = self.start("laptop", *common, "--tag", "laptop")
        peer = ("--peer", laptop.url)
        a = self.host("linux-a", *peer, *common, "--tag", "linux", "--property", "python=3.12")
        gpu = self.host("gpu-a", *peer, *common, "--tag", "linux", "--tag", "gpu", "--gpus", gpus)
        for host in (a, gpu):
            host.spawn()
        for host in (a, gpu):
            host.wait_ready()
        self.wait_joined()

    def running(self) -> list[HostProcess]:
        return [host for host in self.hosts.values() if host.process is not None]

    def wait_joined(self) -> None:
        """Wait until each running host has all the others online."""
        names = {host.name for host in self.running()}

        def seen() -> bool:
            online = [{view.host.name for view in host.client.hosts() if view.online} for host in self.running()]
            return all(names <= each for each in online)

        wait_until(seen, what=f"{sorted(names)} to know each other")

    # Leftovers.

    def processes(self) -> list[psutil.Process]:
        """Return every live process of this mesh."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def strangers(self) -> list[str]:
        """Return the processes of the mesh that are neither a running host nor wait for its jobs."""
        hosts = {host.pid for host in self.running()}
        strange = []
        for process in self.processes():
            with suppress(psutil.Error):
                is_zygote = "_zygote" in process.cmdline() and process.ppid() in hosts
                waits = is_template(process, hosts) or is_worker(process, hosts)
                if process.pid not in hosts and not is_zygote and not waits:
                    strange.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        return strange

    def scratch_of_nobody(self) -> list[str]:
        """Return scratch directories of paglets that are not on their host."""
        left = []
        for host in self.running():
            kept = "SELECT agent_id FROM kept_scratch WHERE removed_at IS NULL"
            rows = host.rows(f"SELECT agent_id FROM paglets UNION {kept}")
            here = {".trash", *(row["agent_id"] for row in rows)}
            folder = host.data / "work"
            left += [str(path) for path in folder.iterdir() if path.name not in here] if folder.is_dir() else []
        return left

    def check_quiet(self) -> None:
        """Check that no user code runs any more, and nothing of ended jobs is left."""
        self._none(self.strangers, "no process of a job to be left")
        self._none(self.scratch_of_nobody, "no scratch directory of an ended job to be left")

    def close(self) -> None:
        """End all hosts, and check that nothing is left of the mesh."""
        for host in self.running():
            assert host.process is not None
            host.process.terminate()
        for host in self.running():
            assert host.process is not None
            with suppress(subprocess.TimeoutExpired):
                host.process.wait(END_SECONDS)
        late = [host.name for host in self.running() if host.process is not None and host.process.poll() is None]
        for process in self._others:
            process.kill()
            process.wait()
        try:
            assert not late, f"did not end within {END_SECONDS:g} s of SIGTERM: {late}"
            for host in self.hosts.values():
                host.process = None
            self._none(self.strangers, "no process of the mesh to be left")
        finally:
            for left in self.processes():
                with suppress(psutil.Error):
                    left.kill()

    def _none(self, look: Callable[[], list[str]], what: str) -> None:
        left: list[str] = []

        def gone() -> bool:
            left[:] = look()
            return not left

        try:
            wait_until(gone, what=what)
        except AssertionError as error:
            raise AssertionError(f"waited for {what}: {left}") from error

    def sections(self) -> list[tuple[str, str]]:
        """Return sections for the report of a failed test: the end of all output."""
        files = sorted(self.logs.iterdir())
        for host in self.hosts.values():
            files += [host.data / "host.log", *sorted((host.data / "logs").glob("*/*.err"))[-5:]]
        said = [(str(path), path.read_text(errors="replace")) for path in files if path.exists()]
        return [(name, text[-LOG_TAIL_CHARACTERS:]) for name, text in said if text]


def is_template(process: psutil.Process, hosts: Collection[int]) -> bool:
    """Return True for a process that has imported a module to fork attempts, forked by a zygote of a running host."""
    zygote = process.parent()
    is_marked = process.environ().get("PAGLETS_RUN", "").startswith("template-")
    return is_marked and zygote is not None and zygote.ppid() in hosts


def is_worker(process: psutil.Process, hosts: Collection[int]) -> bool:
    """Return True for a warm worker of a running host without child processes. It may wait for its next job."""
    is_marked = process.environ().get("PAGLETS_RUN", "").startswith("worker-")
    return is_marked and not process.children() and any(parent.pid in hosts for parent in process.parents())


def group_lines(host: HostProcess) -> dict[str, Any]:
    """Return the groups that this host lists, by id."""
    return {line.group_id: line for line in host.client.groups()}


def is_home(host: HostProcess, group_id: str) -> bool:
    """Return True if the group is complete and its collector is on this host."""
    line = group_lines(host).get(group_id)
    return line is not None and line.here and line.status == "COMPLETE"


def wait_home(host: HostProcess, group_id: str) -> None:
    wait_until(lambda: is_home(host, group_id), what=f"the collector of {group_id} to be home")


def starts_of(path: Path) -> list[list[str]]:
    """Return the starts that jobs reported (`mesh_jobs.Task` with this `path`): generation.attempt, pid, host.

    The file exists before its first line does, so wait for the line.
    """
    said = Path(f"{path}.running")
    lines = said.read_text().splitlines(keepends=True) if said.exists() else []
    return [line.split() for line in lines if line.endswith("\n")]


def wait_running(path: Path, count: int = 1) -> list[list[str]]:
    """Wait until jobs have reported this many starts, and return them."""
    return wait_until(lambda: (found := starts_of(path))[count - 1 :] and found, what=f"{count} starts of {path.name}")


_held: list[socket.socket] = []


def free_port() -> int:
    """Return a free port that no one else gets as long as this process lives.

    It stays bound here without listening. The system thus gives it to no connection and no other test, while a host
    that names it may listen there, also after a restart. (Both sockets allow the address to be reused.)
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    return int(holder.getsockname()[1])


# Fixtures for the conftest of each folder that uses them.


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive under test."""
    given = os.environ.get("PAGLETS_PYZ")
    return Path(given).absolute() if given else built_archive(tmp_path_factory)


def share_unpacked(archive: Path, python: str, home: Path) -> None:
    """Let a home without a cache use the unpacked copy of the archive that all tests share.

    Unpacking and compiling take a second of processor time, and there are hundreds of homes.
    """
    if (home / "cache").exists() or os.path.lexists(home / "cache"):
        return
    copy = _unpacked(archive, python)
    folder = home / "cache" / "app"
    for each in (home, folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / copy.name).symlink_to(copy)


@functools.cache
def _unpacked(archive: Path, python: str) -> Path:
    home = archive.parent / f"home-{hashlib.sha256(archive.read_bytes()).hexdigest()[:16]}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_USER)}
    subprocess.run(
        [python, archive, "version"],
        env=kept | {"PAGLETS_HOME": str(home)},
        check=True,
        timeout=COMMAND_SECONDS,
        stdout=subprocess.DEVNULL,
    )
    # Not a copy that another process of the tests is just writing: its name is not yet the hash.
    (manifest,) = (home / "cache" / "app").glob(f"{'[0-9a-f]' * 64}/{MANIFEST}")
    return manifest.parent


def built_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of this checkout, built once for all processes of the tests."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own in a shared one.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = shared / "archive" / "paglets.pyz"
    path.parent.mkdir(exist_ok=True)
    with (path.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            command = [sys.executable, ROOT / "build_zipapp.py", "--output", path]
            subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="session")
def python() -> str:
    """Return the interpreter that runs the archive."""
    return os.environ.get("PAGLETS_PYTHON") or sys.executable


@contextmanager
def _closing(mesh: Mesh) -> Iterator[Mesh]:
    try:
        yield mesh
    finally:
        mesh.close()


MakeMesh = Callable[[str], AbstractContextManager["Mesh"]]


@pytest.fixture(scope="session")
def make_mesh(tmp_path_factory: pytest.TempPathFactory, archive: Path, python: str) -> MakeMesh:
    """Return a function that creates a mesh without hosts in a folder of this name. Close each mesh at the end."""
    return lambda name: _closing(Mesh(tmp_path_factory.mktemp(name) / "mesh", archive, python))


@pytest.fixture
def mesh(tmp_path: Path, archive: Path, python: str) -> Iterator[Mesh]:
    """Return a mesh without hosts."""
    with _closing(Mesh(tmp_path / "mesh", archive, python)) as made:
        yield made


@pytest.fixture(scope="module")
def three(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Start laptop, linux-a and gpu-a, shared by the tests of a module. A test that ends one starts it again."""
    with make_mesh("three") as made:
        made.start_three()
        yield made


def meshes_of(item: pytest.Item) -> list[Mesh]:
    """Return the meshes that a test uses."""
    return [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Mesh)]


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test that no process of a job and no scratch directory of an ended job is left."""
    yield
    for mesh in meshes_of(request.node):
        mesh.check_quiet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the output of the meshes' processes to the report of a failed test."""
    report = yield
    if report.failed:
        for mesh in meshes_of(item):
            report.sections.extend(mesh.sections())
    return report

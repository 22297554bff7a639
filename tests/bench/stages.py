"""`python -m tests.bench.stages [--compare FILE]`: the parts of a job's time; one JSON line.

A plain script submits jobs with the built archive. All hosts are on this machine, so their clocks agree.

- `yardsticks_ms`: a COMMIT to the disk, a fork with exit, and an HTTP request, from the same run.
- `one_host_ms`, `two_hosts_ms`: one trivial job on one host, or with the collector and the worker on another host.
  `total` is the median without notes. The stages are medians of runs with notes (`traced`), which cost a little.
- `after_report_ms`: on the worker's host, what follows the report of a job until its slot is free.
- `cpu_ms`: processor time of each process for one of MANY trivial jobs.
- `naps_efficiency`: 200 jobs of 0.1 s on four slots of two hosts; 1.0 would be 5 s.

`--compare` prints on stderr what changed since the run whose line is in FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.rig import HostProcess, Mesh
from tests.bench import print_figures

SCRIPT = Path(__file__).with_name("plain_script.py")
TRACED = Path(__file__).with_name("traced.py")
ROUNDS = 30
MANY = 300
WARM_UP = 6

Note = tuple[float, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage that ends with a note. `at`: "script", "job", "home" or "worker"; `moves`: not on a single host."""

    name: str
    at: str
    note: str
    moves: bool = False


STAGES = (
    Stage(name="submit", at="home", note="request"),
    Stage(name="commit", at="home", note="sent", moves=True),
    Stage(name="hand-off", at="worker", note="granting"),
    Stage(name="grant", at="worker", note="launch"),
    Stage(name="spawn", at="worker", note="started"),
    Stage(name="store the pid", at="worker", note="go"),
    Stage(name="import", at="job", note="began"),
    Stage(name="run", at="job", note="ended"),
    Stage(name="report", at="worker", note="answered:report"),
    Stage(name="reply", at="script", note="result"),
)
AFTER_REPORT = (
    Stage(name="done", at="worker", note="answered:done"),
    Stage(name="exit", at="worker", note="exit"),
    Stage(name="close", at="worker", note="closed"),
)


class TracedMesh(Mesh):
    """A mesh whose hosts write notes (`traced`)."""

    def notes(self, host: HostProcess) -> list[Note]:
        lines = (self.folder / f"{host.name}.notes").read_text().splitlines()
        return [(float(at), note) for at, note in (line.split(" ", 1) for line in lines)]

    def command_line(self, command: list[str]) -> list[str]:
        notes = self.folder / f"{command[command.index('--name') + 1]}.notes"
        return [self.python, str(TRACED), str(self.archive), str(notes), *command]


# Yardsticks.


def median_ms(act: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return round(1000 * statistics.median(taken), 2)


class _Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the base class
        """Print nothing."""


def yardsticks(folder: Path) -> dict[str, float]:
    base = sqlite3.connect(folder / "yardstick.db", isolation_level=None)
    for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (x)"):
        base.execute(line)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = HTTPConnection("127.0.0.1", server.server_address[1])

    def fork() -> None:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

    def ask() -> None:
        connection.request("GET", "/")
        connection.getresponse().read()

    try:
        return {
            "commit": median_ms(lambda: base.execute("INSERT INTO t VALUES (1)")),
            "fork": median_ms(fork),
            "http": median_ms(ask),
        }
    finally:
        server.shutdown()
        base.close()


# Jobs.


def run_script(mesh: Mesh, home: str, collector: str, groups: int, jobs: int, seconds: float = 0.0) -> Any:
    return mesh.script(SCRIPT, home, collector, groups, jobs, seconds).json


def ends(stages: tuple[Stage, ...], began: float, notes: dict[str, list[Note]]) -> Iterator[tuple[str, float]]:
    """Yield each stage with its milliseconds: the first note of its name after the end of the stage before."""
    for stage in stages:
        ended = next((at for at, note in sorted(notes[stage.at]) if at >= began and note == stage.note), began)
        yield stage.name, 1000 * (ended - began)
        began = ended


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in found), 2) for name in found[0]}


def stages_of(mesh: TracedMesh, home: HostProcess, worker: HostProcess) -> tuple[dict[str, float], dict[str, float]]:
    """Return the stages of one job until its result, and those after its report."""
    groups = run_script(mesh, home.name, worker.name, WARM_UP + ROUNDS, 1)["groups"][WARM_UP:]
    notes = {"home": mesh.notes(home), "worker": mesh.notes(worker)}
    stages = tuple(stage for stage in STAGES if home is not worker or not stage.moves)
    until, after = [], []
    for group in groups:
        (job,) = group["jobs"]
        notes |= {"job": [(job["began"], "began"), (job["ended"], "ended")], "script": [(group["ended"], "result")]}
        until.append(dict(ends(stages, group["began"], notes)))
        reported = next(at for at, note in notes["worker"] if at >= job["ended"] and note == "answered:report")
        after.append(dict(ends(AFTER_REPORT, reported, notes)))
    return medians(until), medians(after)


def total_ms(mesh: Mesh, home: str, collector: str) -> float:
    groups = run_script(mesh, home, collector, WARM_UP + ROUNDS, 1)["groups"][WARM_UP:]
    return round(1000 * statistics.median(group["ended"] - group["began"] for group in groups), 1)


def cpu_seconds(hosts: dict[str, HostProcess]) -> dict[str, float]:
    """Return the processor time of each host, and of the living and the ended processes below the worker."""
    found = {name: sum(psutil.Process(host.pid).cpu_times()[:2]) for name, host in hosts.items()}
    times = [each.cpu_times() for each in psutil.Process(hosts["worker's host"].pid).children(recursive=True)]
    found["zygote and templates"] = sum(each.user + each.system for each in times)
    return found | {"child": sum(each.children_user + each.children_system for each in times)}


def cpu_ms(mesh: Mesh, hosts: dict[str, HostProcess]) -> dict[str, float]:
    names = (hosts["home host"].name, hosts["collector's host"].name)
    run_script(mesh, *names, 1, WARM_UP)
    before = cpu_seconds(hosts)
    script = run_script(mesh, *names, 1, MANY)["cpu_seconds"]
    used = {name: seconds - before[name] for name, seconds in cpu_seconds(hosts).items()}
    return {name: round(1000 * seconds / MANY, 2) for name, seconds in ({"script": script} | used).items()}


def naps_efficiency(mesh: Mesh, home: str, collector: str) -> float:
    (group,) = run_script(mesh, home, collector, 1, 200, 0.1)["groups"]
    return round(5.0 / (group["ended"] - group["began"]), 3)


def start(mesh: Mesh, *names: str, cores: int = 2) -> list[HostProcess]:
    """Start hosts that join the first one. Those whose names begin with "worker" run the jobs."""
    hosts: list[HostProcess] = []
    for name in names:
        tag = ("--tag", "worker") if name.startswith("worker") else ()
        peer = ("--peer", hosts[0].url) if hosts else ()
        hosts.append(mesh.start(name, "--cpu-cores", cores, *tag, *peer))
    mesh.wait_joined()
    return hosts


def figures(folder: Path, archive: Path) -> dict[str, object]:
    found: dict[str, object] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    found["yardsticks_ms"] = yardsticks(folder)
    for key, names in (("one_host_ms", ("worker",)), ("two_hosts_ms", ("home", "worker"))):
        plain, traced = (
            Mesh(folder / key, archive, sys.executable),
            TracedMesh(folder / f"{key}.t", archive, sys.executable),
        )
        try:
            start(plain, *names)
            total = total_ms(plain, names[0], names[-1])
            hosts = start(traced, *names)
            stages, after = stages_of(traced, hosts[0], hosts[-1])
        finally:
            plain.close()
            traced.close()
        found |= {key: {"total": total, **stages}, "after_report_ms": after}
    mesh = Mesh(folder / "cpu", archive, sys.executable)
    try:
        home, worker, keeper = start(mesh, "home", "worker", "keeper")
        found["cpu_ms"] = cpu_ms(mesh, {"home host": home, "worker's host": worker, "collector's host": keeper})
        mesh.start("worker2", "--cpu-cores", 2, "--tag", "worker", "--peer", home.url)
        mesh.wait_joined()
        found["naps_efficiency"] = naps_efficiency(mesh, home.name, keeper.name)
    finally:
        mesh.close()
    return found


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", float(value)


def compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    known = dict(flat(before))
    for name, value in flat(now):
        if name in known:
            print(f"{name:40} {known[name]:9.2f} {value:9.2f}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", type=Path, help="a file with the line of an earlier run")
    earlier = parser.parse_args().compare
    before = json.loads(earlier.read_text()) if earlier else {}

    def measured(folder: Path, archive: Path) -> dict[str, object]:
        found = figures(folder, archive)
        compare(before, found)
        return found

    print_figures(measured)


if __name__ == "__main__":
    main()

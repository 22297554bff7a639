"""Warm workers of a real host: each job runs once, and only the job that ends a worker is charged."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from paglets.host.jobs.lines import MOST_AHEAD
from tests.acceptance.rig import HostProcess, Mesh, wait_until
from tests.fault.disks import as_root, mounted
from tests.fault.hosts import zygotes

SCRIPT = """\
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

{first}
from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)

KEPT = []
FOLDER = Path({folder!r})


@dataclass
class State(CollectingComputeJobState):
    number: int = 0
    do: str = ""


class Job(CollectingComputeJobPaglet[State]):
    State = State
    isolation = "worker"

    def run_compute_job(self):
        number, do = self.state.number, self.state.do
        with open(FOLDER / "ran", "a") as file:
            file.write(f"{{number}}:{{os.getpid()}}:{{self.state.attempt}}\\n")
        print(f"output of {{number}}")
        if do == "exit":
            os._exit(3)
        elif do == "raise":
            raise ValueError("wrong")
        elif do == "thread":
            thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)
            thread.start()
        elif do == "child":
            KEPT.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        elif do == "directory":
            os.chdir("/")
        elif do == "environment":
            os.environ["LEAKED"] = "1"
        elif do == "signal":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        elif do == "timer":
            signal.alarm(600)
        elif do == "limit":
            resource.setrlimit(resource.RLIMIT_CPU, (600, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        elif do == "file":
            KEPT.append(open("/dev/null"))
        elif do == "library":
            KEPT.append(open(os.__file__))
        elif do == "close":
            KEPT.pop().close()
        elif do == "libraries":
            KEPT.extend(open(os.__file__) for _ in range(65))
        elif do == "locked":
            KEPT.append(open(os.__file__))
            fcntl.flock(KEPT[-1], fcntl.LOCK_EX)
        elif do == "memory":
            KEPT.append(b"x" * (300 << 20))
        elif do == "own memory":
            self.kept = [b"x" * (300 << 20)]
            self.kept.append(self.kept)
        elif do == "stdout":
            sys.stdout.close()
        elif do == "descriptor":
            os.close(1)
            time.sleep(0.02)
        elif do == "seed":
            numpy.random.seed(7)
        elif do == "draw":
            return [number, float(numpy.random.rand())]
        elif do == "print":
            print("x" * 2_000_000)
        elif do == "wait":
            while not (FOLDER / "go").exists():
                time.sleep(0.01)
        assert "LEAKED" not in os.environ and Path.cwd() == Path(os.environ["PWD"]) or do
        return [number, os.environ["PAGLETS_JOB_ID"] == self.agent_id]


if __name__ == "__main__":
    acts, more = {acts!r}, {more!r}
    states = [
        State(job_key=f"k{{number}}", number=number, do=acts.get(number, ""), **more) for number in range({count})
    ]
    submission = submit_compute_job_group(HostClient(), Job, states, group_id="many")
    if {wait!r}:
        submission.drain(120)
"""


@pytest.fixture
def host(mesh: Mesh) -> HostProcess:
    return mesh.start("one", "--cpu-cores", 1)


class Jobs:
    """Jobs with `isolation = "worker"` that a script submits. `acts`: what some of them do, by number."""

    def __init__(self, host: HostProcess, folder: Path) -> None:
        self.host = host
        self.folder = folder

    def submit(
        self, count: int, acts: dict[int, str] | None = None, wait: bool = True, first: str = "", **more: Any
    ) -> None:
        """Submit a script with `count` jobs. `first`: its first import. `more`: fields of the states."""
        text = SCRIPT.format(folder=str(self.folder), acts=acts or {}, more=more, count=count, wait=wait, first=first)
        (self.folder / "many.py").write_text(text)
        finished = self.host.mesh.script(self.folder / "many.py")
        assert finished.code == 0, finished.err

    def ran(self) -> list[tuple[int, int, int]]:
        """Return number, process and attempt of each start of a job, in order."""
        path = self.folder / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(number), int(pid), int(attempt)) for number, pid, attempt in (line.split(":") for line in lines)]

    def numbers(self) -> list[int]:
        return [number for number, _, _ in self.ran()]

    def processes(self) -> list[int]:
        """Return the processes in which jobs ran, each once, in order."""
        return list(dict.fromkeys(pid for _, pid, _ in self.ran()))

    def drain(self, count: int) -> None:
        wait_until(lambda: self.summary()["completed_count"] == count, what=f"{count} jobs to complete")

    def summary(self) -> dict[str, Any]:
        return self.host.client.summary("many")

    def show(self, number: int) -> str:
        return self.host.mesh.paglets("jobs", "show", f"many/k{number}").out


@pytest.fixture
def jobs(host: HostProcess, tmp_path: Path) -> Jobs:
    return Jobs(host, tmp_path)


def worker_of(host: HostProcess) -> psutil.Process:
    """Return the process of all runs: jobs that were sent ahead have the same one."""
    (row,) = wait_until(lambda: host.rows("SELECT DISTINCT pid FROM runs WHERE pid IS NOT NULL"), what="a run")
    return psutil.Process(row["pid"])


def test_200_jobs_run_once_in_one_process(jobs: Jobs) -> None:
    jobs.submit(200)
    assert sorted(jobs.numbers()) == list(range(200))
    assert len(jobs.processes()) == 1
    results = jobs.summary()["results"]
    assert [results[f"k{number}"]["result"] for number in range(200)] == [[number, True] for number in range(200)]
    assert re.search(r"^isolation +worker$", jobs.show(7), re.MULTILINE)
    assert jobs.host.mesh.paglets("jobs", "logs", "many/k7").out == "output of 7\n"


def test_an_idle_worker_ends(jobs: Jobs) -> None:
    jobs.submit(1)
    (pid,) = jobs.processes()
    wait_until(lambda: not psutil.pid_exists(pid), what="the end of the idle worker")
    wait_until(lambda: not jobs.host.rows("SELECT 1 FROM templates WHERE token LIKE 'worker-%'"), what="its row to go")


@pytest.mark.parametrize(
    ("act", "text"),
    [
        ("thread", "left a thread"),
        ("child", "left a child process"),
        ("directory", "changed the working directory"),
        ("environment", "changed environment variables: LEAKED"),
        ("signal", "changed a signal handler"),
        ("timer", "changed the timers"),
        ("limit", "changed the resource limits"),
        ("file", "left an open file"),
        ("locked", "left an open file"),
        ("libraries", "left 65 files of installed libraries open"),
        ("memory", "left 300"),
        ("stdout", "closed stdout"),
        ("descriptor", "closed or replaced the file descriptor of stdout"),
    ],
)
def test_a_job_that_leaves_something_behind_ends_its_worker(jobs: Jobs, act: str, text: str) -> None:
    jobs.submit(4, {1: act})
    assert sorted(jobs.numbers()) == list(range(4))
    assert jobs.summary()["completed_count"] == 4
    assert len(jobs.processes()) == 2
    assert f"because it {text}" in jobs.show(1)
    assert "because it" not in jobs.show(2)
    assert not [process for process in jobs.host.mesh.processes() if "600" in process.cmdline()]


def test_a_library_may_keep_its_files_open(jobs: Jobs) -> None:
    jobs.submit(6, {0: "library", 1: "library", 3: "close"})
    assert sorted(jobs.numbers()) == list(range(6))
    assert len(jobs.processes()) == 1


@pytest.mark.parametrize(("act", "asked"), [("memory", 350 << 20), ("own memory", 0)])
def test_a_worker_may_keep_the_memory_that_its_jobs_ask_for_and_that_they_free(
    jobs: Jobs, act: str, asked: int
) -> None:
    jobs.submit(6, {1: act}, memory_bytes=asked)
    assert sorted(jobs.numbers()) == list(range(6))
    assert len(jobs.processes()) == 1


def test_each_job_has_its_own_generator_of_numpy(jobs: Jobs) -> None:
    numpy = pytest.importorskip("numpy")
    jobs.submit(5, {0: "seed", **dict.fromkeys(range(1, 5), "draw")}, first="import numpy")
    assert len(jobs.processes()) == 1
    results = jobs.summary()["results"]
    drawn = {results[f"k{number}"]["result"][1] for number in range(1, 5)}
    assert len(drawn) == 4
    assert not drawn & set(numpy.random.RandomState(7).rand(4))


@as_root
def test_a_full_disk_loses_output_of_a_job_and_not_the_job(mesh: Mesh, tmp_path: Path) -> None:
    host = mesh.host("one", "--cpu-cores", 1)
    with mounted(host.data / "logs", "size=1m") as logs:
        host.spawn()
        host.wait_ready()
        jobs = Jobs(host, tmp_path)
        jobs.submit(2, {0: "print"}, wait=False)
        jobs.drain(1)
        said = host.mesh.paglets("jobs", "logs", "many/k0").out
        assert "bytes could not be written" in said[-300:], said[-300:]
        for log in logs.rglob("*.out"):
            log.unlink()
        jobs.drain(2)
        assert host.mesh.paglets("jobs", "logs", "many/k1").out == "output of 1\n"
        host.stop()


def test_only_the_job_that_exits_is_charged(jobs: Jobs) -> None:
    jobs.submit(10, {4: "exit"})
    assert sorted(jobs.numbers()) == list(range(10))
    summary = jobs.summary()
    assert (summary["completed_count"], list(summary["failures"])) == (9, ["k4"])
    assert summary["failures"]["k4"]["cause"] == "exit:3"
    assert len(jobs.processes()) == 2


def assigned(host: HostProcess) -> list[Any]:
    return host.rows("SELECT agent_id FROM requests WHERE status = 'ASSIGNED'")


def test_short_jobs_are_sent_ahead_and_one_that_exits_is_charged_alone(jobs: Jobs) -> None:
    jobs.submit(200, {150: "exit"}, wait=False)
    wait_until(lambda: assigned(jobs.host), what="a job to be sent ahead")
    wait_until(lambda: jobs.summary()["pending_count"] == 0, what="200 jobs to end")
    assert sorted(jobs.numbers()) == list(range(200))
    assert {attempt for _, _, attempt in jobs.ran()} == {1}
    assert list(jobs.summary()["failures"]) == ["k150"]


def test_jobs_behind_a_long_one_are_taken_back_and_run_once(jobs: Jobs) -> None:
    jobs.submit(100, {60: "wait"}, wait=False)
    wait_until(lambda: 60 in jobs.numbers(), what="the job that waits")
    wait_until(lambda: not assigned(jobs.host), what="the jobs behind it to be taken back")
    (jobs.folder / "go").touch()
    jobs.drain(100)
    assert sorted(jobs.numbers()) == list(range(100))
    assert len(jobs.processes()) == 1


def test_jobs_that_were_sent_ahead_run_at_most_once_more_after_the_host_was_killed(jobs: Jobs) -> None:
    """A worker runs the jobs of its line while the host stores the results of those before them."""
    jobs.submit(150, wait=False)
    wait_until(lambda: assigned(jobs.host), what="a job to be sent ahead")
    jobs.host.kill()
    jobs.host = jobs.host.mesh.start("one", "--cpu-cores", 1)
    jobs.drain(150)
    again = [number for number in range(150) if jobs.numbers().count(number) != 1]
    assert len(again) <= 1 + MOST_AHEAD
    assert all(jobs.numbers().count(number) == 2 for number in again)
    jobs.host.stop()


def test_a_job_that_raises_ends_its_worker_and_keeps_its_traceback(jobs: Jobs) -> None:
    jobs.submit(4, {1: "raise"})
    failure = jobs.summary()["failures"]["k1"]
    assert failure["cause"] == "exception"
    assert "ValueError: wrong" in failure["traceback"]
    assert len(jobs.processes()) == 2


def test_only_the_job_of_a_killed_worker_is_charged(jobs: Jobs) -> None:
    jobs.submit(6, {2: "wait"}, wait=False, max_attempts=2)
    wait_until(lambda: 2 in jobs.numbers(), what="the job that waits")
    worker = worker_of(jobs.host)
    (jobs.folder / "go").touch()
    with suppress(psutil.NoSuchProcess):
        worker.kill()
    jobs.drain(6)
    # The killed job is charged even if its code had not written its number yet.
    again = {number for number in range(6) if jobs.numbers().count(number) > 1}
    assert len(again | {number for number, _, attempt in jobs.ran() if attempt > 1}) <= 1


def test_a_job_that_takes_too_long_ends_with_its_worker_alone(jobs: Jobs) -> None:
    jobs.submit(4, {1: "wait"}, timeout_seconds=1.0)
    summary = jobs.summary()
    assert (summary["completed_count"], summary["failures"]["k1"]["cause"]) == (3, "timeout")
    assert sorted(jobs.numbers()) == list(range(4))


def test_jobs_of_a_killed_zygote_run_again_and_are_not_charged(jobs: Jobs) -> None:
    jobs.submit(4, {1: "wait"}, wait=False)
    wait_until(lambda: 1 in jobs.numbers(), what="the job that waits")
    (zygote,) = zygotes(jobs.host)
    (jobs.folder / "go").touch()
    zygote.kill()
    jobs.drain(4)


def test_a_killed_host_leaves_no_worker_and_runs_its_job_alone_once(jobs: Jobs) -> None:
    jobs.submit(4, {1: "wait"}, wait=False)
    wait_until(lambda: 1 in jobs.numbers(), what="the job that waits")
    wait_until(lambda: len(jobs.host.rows("SELECT 1 FROM runs")) == 1, what="the jobs behind it back in the queue")
    worker = worker_of(jobs.host)
    wait_until(lambda: len(jobs.host.rows("SELECT 1 FROM runs")) == 1, what="the jobs behind it back in the queue")

    jobs.host.kill()
    (jobs.folder / "go").touch()
    host = jobs.host = jobs.host.mesh.start("one", "--cpu-cores", 1)

    jobs.drain(4)
    assert not worker.is_running()
    assert jobs.numbers().count(1) <= 2
    assert all(jobs.numbers().count(number) == 1 for number in (0, 2, 3))
    assert not re.search(r"^isolation", jobs.show(1), re.MULTILINE) or jobs.numbers().count(1) == 1
    assert re.search(r"^isolation +worker$", jobs.show(3), re.MULTILINE)
    host.stop()

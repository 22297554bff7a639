"""The pool of warm workers: which worker takes a job, who is charged for its end, and when it ends."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from typing import Any

import pytest

from paglets.api.slots import Usage
from paglets.slots.model import Resources
from paglets.worker.frames import Unpacker
from paglets.worker.host.worker_pool import FINISH, FINISH_SECONDS, WorkerPool
from paglets.worker.launch import IDLE_SECONDS, LaunchSpec, ProcessExit, WorkerKey
from paglets.worker.worker_protocol import Began, JobEnded, Withdrawn, WorkerLeaves, WorkerRecord, to_frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm workers need Linux")

KEY = WorkerKey(bundle="a" * 64, module="many", resources=Resources(cpu_cores=1))
OTHER = replace(KEY, bundle="b" * 64)


class Processes:
    """The processes of a launcher. `sent`: the jobs that each worker got, by its token."""

    def __init__(self) -> None:
        self.started: list[LaunchSpec] = []
        self.sent: dict[str, list[str]] = {}
        self.finished: list[str] = []
        self.ended: list[str] = []
        self.withdrawn: list[str] = []
        self.no_pipes = False
        self.time = 100.0

    def start_process(self, spec: LaunchSpec) -> None:
        self.started.append(spec)

    def write(self, token: str, data: bytes) -> None:
        if data == FINISH:
            self.finished.append(token)
        self.withdrawn += [frame["withdraw"] for frame in Unpacker().feed(data) if "withdraw" in frame]

    def write_job(self, worker: str, data: bytes, spec: LaunchSpec) -> None:
        if self.no_pipes:
            raise OSError(errno.EMFILE, "too many open files")
        self.sent.setdefault(worker, []).append(spec.token)

    def begin_job(self, worker: str, work_dir: str) -> None: ...

    def exit_of_job(self, spec: LaunchSpec, how: ProcessExit) -> ProcessExit:
        return how

    def end_process(self, token: str) -> None:
        self.ended.append(token)

    def now(self) -> float:
        return self.time


class Templates:
    def __init__(self) -> None:
        self.tokens: set[str] = set()

    def started(self, token: str, pid: int, start_time: float) -> None:
        self.tokens.add(token)

    def ended(self, token: str) -> None:
        self.tokens.remove(token)


class Host:
    """The events that a host gets. `ends`: how each run ended, by token."""

    def __init__(self) -> None:
        self.templates = Templates()
        self.pids: dict[str, int] = {}
        self.frames: list[str] = []
        self.usages: dict[str, Usage] = {}
        self.ends: dict[str, ProcessExit] = {}

    def started(self, token: str, pid: int, start_time: float) -> None:
        self.pids[token] = pid

    def frame(self, token: str, frame: dict[str, Any]) -> None:
        self.frames.append(token)

    def sampled(self, token: str, usage: Usage) -> None:
        self.usages[token] = usage

    def ended(self, token: str, ended: ProcessExit) -> None:
        assert token not in self.ends
        self.ends[token] = ended

    def start_blocked(self, text: str) -> None: ...


class Rig:
    def __init__(self) -> None:
        self.processes, self.host = Processes(), Host()
        self.pool = WorkerPool(self.processes, self.host)

    def start(self, token: str, key: WorkerKey | None = KEY, line: str = "") -> None:
        spec = LaunchSpec(
            token=token,
            agent_id="job",
            attempt=1,
            work_dir="/work",
            stdout_path="out",
            stderr_path="err",
            threads=1,
            worker=key,
            line=line,
        )
        self.pool.start(spec)

    def line(self, *tokens: str) -> str:
        """Start a worker whose first job runs, and that has all other jobs. Return its token."""
        for token in tokens:
            self.start(token, line=tokens[0])
        worker = self.fork()
        self.begin(worker, tokens[0])
        for token in tokens[1:]:
            self.pool.send(token, b"go", is_go=True)
        return worker

    def fork(self, position: int = -1, pid: int = 7) -> str:
        """Let the process of a worker start, and store it."""
        worker = self.processes.started[position].token
        self.pool.started(worker, pid, 1.0)
        self.pool.allow(worker)
        return worker

    def say(self, worker: str, record: WorkerRecord) -> None:
        self.pool.frame(worker, to_frame(record))

    def begin(self, worker: str, token: str) -> None:
        self.pool.send(token, b"go", is_go=True)
        self.say(worker, Began(token=token, cpu_before=0.0))

    def end(self, worker: str, token: str) -> None:
        self.say(worker, JobEnded(token=token, cpu_seconds=1.0, rss_bytes=2))
        self.pool.output_ended(token)

    def run(self, worker: str, token: str) -> None:
        self.begin(worker, token)
        self.end(worker, token)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_job_waits_until_the_process_of_its_worker_is_stored(rig: Rig) -> None:
    rig.start("a")
    worker = rig.processes.started[0].token
    assert rig.processes.started[0].is_worker
    rig.pool.started(worker, 7, 1.0)
    assert rig.host.pids == {}
    assert rig.host.templates.tokens == {worker}
    rig.pool.allow(worker)
    assert rig.host.pids == {"a": 7}


def test_a_job_that_is_sent_early_waits_until_the_process_of_its_worker_is_stored(rig: Rig) -> None:
    rig.start("a", line="a")
    rig.start("b", line="a")
    worker = rig.processes.started[0].token
    for token in ("a", "b"):
        rig.pool.send(token, b"go", is_go=True)
    rig.pool.started(worker, 7, 1.0)
    assert rig.processes.sent == {}
    rig.pool.allow(worker)
    assert rig.processes.sent == {worker: ["a", "b"]}


def test_an_idle_worker_takes_the_next_job_with_its_key(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.run(worker, "a")
    rig.start("b")
    assert rig.host.pids == {"a": 7, "b": 7}
    rig.run(worker, "b")
    assert rig.processes.sent == {worker: ["a", "b"]}
    assert {how.exit_code for how in rig.host.ends.values()} == {0}


def test_a_busy_worker_and_one_with_another_key_take_no_job(rig: Rig) -> None:
    rig.start("a")
    rig.begin(rig.fork(), "a")
    rig.start("b")
    rig.start("c", OTHER)
    assert len(rig.processes.started) == 3


def test_a_process_or_another_worker_takes_the_place_of_an_idle_one(rig: Rig) -> None:
    workers = []
    for token in ("a", "b"):
        rig.start(token)
        workers.append(rig.fork())
    for worker, token in zip(workers, ("a", "b"), strict=True):
        rig.run(worker, token)
        rig.processes.time += 1.0
    rig.start("c", OTHER)
    assert rig.processes.finished == workers[:1]
    rig.start("d", None)
    assert rig.processes.finished == workers


def test_a_job_ends_only_with_the_end_of_its_output(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.say(worker, JobEnded(token="a", cpu_seconds=1.0, rss_bytes=2))
    assert rig.host.ends == {}
    rig.pool.output_ended("a")
    assert rig.host.ends["a"].exit_code == 0
    assert rig.host.ends["a"].in_worker
    assert rig.host.ends["a"].usage == Usage(cpu_seconds=1.0, rss_bytes=2, processes=1)


def test_the_start_of_a_worker_is_no_part_of_the_run_time_of_its_first_job(rig: Rig) -> None:
    rig.start("a", line="a")
    rig.start("b", line="a")
    rig.processes.time += 8.0
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.processes.time += 0.5
    rig.end(worker, "a")
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert {token: how.job_seconds for token, how in rig.host.ends.items()} == {"a": 0.5, "b": None}


def test_requests_reach_only_the_job_that_runs(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.pool.frame(worker, {"op": "report", "stamp": {"token": "a"}})
    assert rig.host.frames == ["a"]
    rig.pool.frame(worker, {"op": "report", "stamp": {"token": "b"}})
    assert (rig.host.frames, rig.processes.ended) == (["a"], [worker])


def test_the_end_of_a_worker_is_charged_to_the_job_that_runs(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.run(worker, "a")
    rig.start("b")
    rig.begin(worker, "b")
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert rig.host.ends["b"].signal == 9
    assert not rig.host.ends["b"].launcher_lost
    assert rig.host.templates.tokens == set()


def test_a_job_that_its_worker_did_not_begin_is_not_charged(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.run(worker, "a")
    rig.start("b")
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert rig.host.ends["b"].launcher_lost
    assert not rig.host.ends["b"].launcher_died
    assert rig.host.ends["b"].error
    assert rig.host.ends["b"].signal is None


def test_a_process_that_never_begins_is_charged_to_its_first_job(rig: Rig) -> None:
    rig.start("a")
    rig.pool.ended(rig.fork(), ProcessExit(exit_code=120))
    assert rig.host.ends["a"].exit_code == 120


def test_a_job_that_is_over_is_not_charged_for_the_end_of_its_worker(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.say(worker, JobEnded(token="a", cpu_seconds=1.0, rss_bytes=2))
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert rig.host.ends["a"].exit_code == 0


def test_a_job_that_leaves_something_behind_ends_with_the_process(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.say(worker, WorkerLeaves(token="a", difference="left a thread"))
    rig.pool.output_ended("a")
    rig.start("b")
    assert rig.host.ends == {}
    assert len(rig.processes.started) == 2
    rig.pool.ended(worker, ProcessExit(exit_code=0, usage=Usage(cpu_seconds=3.0)))
    assert rig.host.ends["a"].worker_ended == "left a thread"


def test_the_use_of_earlier_jobs_does_not_count(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.pool.send("a", b"go", is_go=True)
    rig.say(worker, Began(token="a", cpu_before=5.0))
    rig.pool.sampled(worker, Usage(cpu_seconds=6.0, rss_bytes=9))
    assert rig.host.usages["a"] == Usage(cpu_seconds=1.0, rss_bytes=9)
    rig.pool.ended(worker, ProcessExit(signal=9, usage=Usage(cpu_seconds=7.0)))
    assert rig.host.ends["a"].usage.cpu_seconds == 2.0


def test_an_idle_worker_is_asked_to_exit_and_then_ended(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.run(worker, "a")
    due = rig.pool.next_due()
    assert due == rig.processes.time + IDLE_SECONDS
    rig.processes.time = due
    rig.pool.do_due(due)
    assert (rig.processes.finished, rig.processes.ended) == ([worker], [])
    rig.pool.do_due(due + FINISH_SECONDS)
    assert rig.processes.ended == [worker]
    assert rig.pool.next_due() is None


def test_a_job_that_is_ended_ends_its_worker(rig: Rig) -> None:
    rig.start("a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.pool.end("a")
    rig.pool.end("a")
    assert rig.processes.ended == [worker]


def test_runs_without_a_key_pass_through(rig: Rig) -> None:
    rig.start("a", None)
    rig.pool.started("a", 8, 1.0)
    rig.pool.frame("a", {"op": "report"})
    rig.pool.sampled("a", Usage(rss_bytes=1))
    rig.pool.end("a")
    rig.pool.ended("a", ProcessExit(signal=15))
    assert (rig.host.pids, rig.host.frames, rig.processes.ended) == ({"a": 8}, ["a"], ["a"])
    assert rig.host.ends == {"a": ProcessExit(signal=15)}


# Jobs that are sent ahead.


def test_a_job_is_sent_to_the_worker_of_its_line_and_gets_its_slot(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    assert rig.processes.sent == {worker: ["a", "b", "c"]}
    rig.end(worker, "a")
    assert rig.host.ends["a"].next_token == "b"
    rig.say(worker, Began(token="b", cpu_before=0.0))
    rig.end(worker, "b")
    rig.say(worker, Began(token="c", cpu_before=0.0))
    rig.end(worker, "c")
    assert (rig.host.ends["b"].next_token, rig.host.ends["c"].next_token) == ("c", "")


def test_a_job_whose_line_is_over_has_no_slot(rig: Rig) -> None:
    rig.start("a", line="a")
    rig.run(rig.fork(), "a")
    rig.start("b", line="a")
    assert rig.host.ends["b"].launcher_lost
    assert len(rig.processes.started) == 1


def test_jobs_behind_one_that_ends_the_worker_are_not_charged(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    rig.pool.ended(worker, ProcessExit(exit_code=3))
    assert (rig.host.ends["a"].exit_code, rig.host.ends["a"].next_token) == (3, "")
    assert all(rig.host.ends[token].launcher_lost for token in "bc")


def test_a_job_that_began_before_the_end_of_the_last_one_was_known_is_charged(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    rig.say(worker, JobEnded(token="a", cpu_seconds=1.0, rss_bytes=2))
    rig.say(worker, Began(token="b", cpu_before=0.0))
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert (rig.host.ends["a"].exit_code, rig.host.ends["a"].next_token) == (0, "b")
    assert (rig.host.ends["b"].signal, rig.host.ends["b"].next_token) == (9, "")
    assert rig.host.ends["c"].launcher_lost


def test_all_jobs_that_ended_before_their_worker_get_the_lease_in_turn(rig: Rig) -> None:
    worker = rig.line("a", "b", "c", "d")
    rig.say(worker, JobEnded(token="a", cpu_seconds=1.0, rss_bytes=2))
    for token in "bc":
        rig.say(worker, Began(token=token, cpu_before=0.0))
        rig.say(worker, JobEnded(token=token, cpu_seconds=1.0, rss_bytes=2))
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert [rig.host.ends[token].next_token for token in "abc"] == ["b", "c", ""]
    assert [rig.host.ends[token].exit_code for token in "abc"] == [0, 0, 0]
    assert rig.host.ends["d"].launcher_lost


def test_a_job_is_not_charged_for_the_time_limit_of_the_job_before_it(rig: Rig) -> None:
    worker = rig.line("a", "b")
    rig.pool.end("a")
    rig.end(worker, "a")
    rig.say(worker, Began(token="b", cpu_before=0.0))
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert (rig.host.ends["a"].exit_code, rig.host.ends["a"].next_token) == (0, "")
    assert rig.host.ends["b"].launcher_lost


def test_a_job_that_has_not_begun_is_taken_back(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    rig.pool.withdraw("b")
    assert (rig.processes.withdrawn, rig.host.ends) == (["b"], {})
    rig.say(worker, Withdrawn(token="b"))
    assert (rig.host.ends["b"].launcher_lost, rig.host.ends["b"].next_token) == (True, "")
    rig.end(worker, "a")
    assert rig.host.ends["a"].next_token == "c"


def test_the_slot_of_a_job_that_is_taken_back_after_it_was_next_passes_on(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    rig.pool.withdraw("b")
    rig.end(worker, "a")
    rig.say(worker, Withdrawn(token="b"))
    assert (rig.host.ends["a"].next_token, rig.host.ends["b"].next_token) == ("b", "c")


def test_a_job_that_its_worker_does_not_have_yet_is_taken_back_at_once(rig: Rig) -> None:
    for token in "ab":
        rig.start(token, line="a")
    rig.pool.end("b")
    assert rig.host.ends["b"].launcher_lost
    assert rig.processes.withdrawn == []


def test_a_job_that_runs_is_not_taken_back(rig: Rig) -> None:
    worker = rig.line("a", "b")
    rig.pool.withdraw("a")
    rig.end(worker, "a")
    rig.say(worker, Began(token="b", cpu_before=0.0))
    rig.pool.withdraw("b")
    assert (rig.processes.withdrawn, rig.processes.ended) == ([], [])


def test_a_job_is_taken_back_with_one_frame(rig: Rig) -> None:
    rig.line("a", "b")
    rig.pool.withdraw("b")
    rig.pool.withdraw("b")
    rig.pool.end("b")
    assert rig.processes.withdrawn == ["b"]


def test_a_job_whose_output_never_ends_can_be_ended(rig: Rig) -> None:
    worker = rig.line("a", "b")
    rig.say(worker, JobEnded(token="a", cpu_seconds=1.0, rss_bytes=2))
    rig.say(worker, Began(token="b", cpu_before=0.0))
    rig.pool.end("a")
    assert rig.processes.ended == [worker]
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert (rig.host.ends["a"].exit_code, rig.host.ends["a"].next_token) == (0, "")
    assert rig.host.ends["b"].launcher_lost


@pytest.mark.parametrize(
    "record",
    [
        Began(token="a", cpu_before=0.0),
        Began(token="b", cpu_before=0.0),
        Withdrawn(token="a"),
        JobEnded(token="b", cpu_seconds=1.0, rss_bytes=2),
        WorkerLeaves(token="b", difference=""),
        JobEnded(token="other", cpu_seconds=1.0, rss_bytes=2),
    ],
)
def test_a_worker_that_sends_frames_out_of_order_ends(rig: Rig, record: WorkerRecord) -> None:
    worker = rig.line("a", "b")
    rig.say(worker, record)
    assert (rig.processes.ended, rig.host.ends) == ([worker], {})
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert rig.host.ends["a"].signal == 9
    assert rig.host.ends["b"].launcher_lost


def test_a_worker_begins_no_job_that_it_did_not_get(rig: Rig) -> None:
    rig.start("a", line="a")
    rig.start("b", line="a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.end(worker, "a")
    rig.say(worker, Began(token="b", cpu_before=0.0))
    assert rig.processes.ended == [worker]


def test_a_cancelled_job_that_began_meanwhile_is_charged_alone(rig: Rig) -> None:
    worker = rig.line("a", "b", "c")
    rig.pool.end("b")
    rig.end(worker, "a")
    rig.say(worker, Began(token="b", cpu_before=0.0))
    assert rig.processes.ended == [worker]
    rig.pool.ended(worker, ProcessExit(signal=9))
    assert rig.host.ends["b"].signal == 9
    assert rig.host.ends["c"].launcher_lost


def test_a_host_without_descriptors_does_not_end_the_job_that_runs(rig: Rig) -> None:
    rig.start("a", line="a")
    worker = rig.fork()
    rig.begin(worker, "a")
    rig.start("b", line="a")
    rig.processes.no_pipes = True
    rig.pool.send("b", b"go", is_go=True)
    assert rig.host.ends["b"].launcher_lost
    assert rig.processes.ended == []

"""Queues and leases of a host: the order of runs, and the reasons of waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mesh_jobs import Task, TaskState

from paglets.api.slots import JobView
from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, MakeMesh, Mesh, wait_running, wait_until


@pytest.fixture(scope="module")
def alone(three_cores: Mesh) -> HostProcess:
    return three_cores["alone"]


@pytest.fixture(scope="module")
def three_cores(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Start one host with three cores and 64 MiB for jobs."""
    with make_mesh("alone") as mesh:
        mesh.start("alone", "--cpu-cores", 3, "--memory", "64M", "--tag", "linux")
        yield mesh


def submit(host: HostProcess, *states: TaskState) -> Submission:
    """Submit to the only host, which runs jobs whatever `allow_home_compute` is."""
    return submit_compute_job_group(host.client, Task, states)


def cores_of(jobs: tuple[JobView, ...]) -> list[int]:
    return [core for job in jobs if job.lease for core in job.lease.cpu_cores]


def test_leases_never_exceed_the_cores_and_their_ids_are_disjoint(
    three_cores: Mesh, alone: HostProcess, tmp_path: Path
) -> None:
    wanted = {f"job-{nth}": nth % 3 + 1 for nth in range(12)}
    common = {"how": "waits", "path": str(tmp_path / "job"), "seconds": 0.15}
    submission = submit(alone, *(TaskState(job_key=key, cpu_cores=cores, **common) for key, cores in wanted.items()))  # type: ignore[arg-type]
    seen: list[list[int]] = []

    def held() -> list[int]:
        seen.append(cores_of(alone.client.jobs()))
        return seen[-1]

    wait_until(lambda: len(held()) == 3, what="all cores to be held")
    (tmp_path / "job.go").touch()
    wait_until(lambda: not held() and not alone.client.jobs(), what="all jobs to end")
    results = submission.drain(timeout=PATIENCE_SECONDS)["results"]

    for cores in seen:
        assert len(cores) == len(set(cores)) <= 3
        assert set(cores) <= {0, 1, 2}
    spans = [(results[key]["result"], cores) for key, cores in wanted.items()]
    for moment in (span["began"] for span, _ in spans):
        assert sum(cores for span, cores in spans if span["began"] <= moment < span["ended"]) <= 3


def test_a_group_on_the_only_host_is_not_waited_for_to_be_detached(
    alone: HostProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    submission = submit(alone, TaskState(job_key="here"))
    assert not submission.wait_detached(timeout=PATIENCE_SECONDS)
    assert submission.drain(timeout=PATIENCE_SECONDS)["results"]["here"]["host_name"] == "alone"
    assert not submission.wait_detached(timeout=PATIENCE_SECONDS)
    told = capfd.readouterr().err
    assert "1 job submitted; it runs here, on the only host" in told
    assert told.count("this is the only host: the ") == 2
    assert submission.detached_reason == "this is the only host: the results are here"


def test_a_job_that_waits_for_memory_says_so_with_the_numbers(
    three_cores: Mesh, alone: HostProcess, tmp_path: Path
) -> None:
    path, memory = str(tmp_path / "job"), 40 << 20
    first = submit(alone, TaskState(job_key="first", how="waits", path=path, memory_bytes=memory))
    wait_running(tmp_path / "job")
    second = submit(alone, TaskState(job_key="second", memory_bytes=memory))

    def said() -> str:
        why = three_cores.paglets("jobs", "why", f"{second.group_id}/second")
        return why.out if why.code == 0 and "memory" in why.out else ""

    told = wait_until(said, what="the reason")
    assert "40 MiB" in told or "40.0 MiB" in told
    assert "24 MiB" in told or "24.0 MiB" in told
    (tmp_path / "job.go").touch()
    for submission in (first, second):
        assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1


def test_a_job_that_no_host_can_ever_run_is_warned_of_and_told(
    three_cores: Mesh, alone: HostProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    submission = submit(alone, TaskState(job_key="huge", cpu_cores=64))
    assert len(submission.warnings) == 1
    assert submission.warnings[0] in capfd.readouterr().err
    assert not submission.detached

    def never() -> str:
        why = three_cores.paglets("jobs", "why", f"{submission.group_id}/huge")
        return why.out if why.code == 3 else ""

    told = wait_until(never, what="exit code 3")
    assert "64 cores asked, alone offers 3" in told
    submission.collector.send("cancel")
    wait_until(lambda: not alone.client.jobs(), what="the job to go")


def test_a_job_that_finds_no_host_in_its_time_fails_as_placement_timeout(alone: HostProcess) -> None:
    state = TaskState(job_key="late", required_host_tags=("windows",), placement_timeout_seconds=0.5)
    failure = submit(alone, state).drain(timeout=PATIENCE_SECONDS)["failures"]["late"]
    assert failure["cause"] == "placement_timeout"


def test_a_job_that_runs_too_long_fails_as_timeout(three_cores: Mesh, alone: HostProcess) -> None:
    state = TaskState(job_key="slow", seconds=600, timeout_seconds=0.3)
    failure = submit(alone, state).drain(timeout=PATIENCE_SECONDS)["failures"]["slow"]
    assert failure["cause"] == "timeout"
    assert "0.3" in failure["message"]


def test_a_job_is_tried_as_often_as_it_said(alone: HostProcess) -> None:
    submission = submit(
        alone,
        TaskState(job_key="third-time", how="fails_twice", max_attempts=3),
        TaskState(job_key="given-up", how="fails_twice", max_attempts=2),
    )
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert summary["results"]["third-time"]["result"]["attempt"] == 3
    assert summary["failures"]["given-up"]["attempt"] == 2
    assert "attempt 2 fails" in summary["failures"]["given-up"]["message"]


def test_the_queue_command_shows_what_runs_and_what_waits(
    three_cores: Mesh, alone: HostProcess, tmp_path: Path
) -> None:
    path = str(tmp_path / "job")
    running = TaskState(job_key="runs", how="waits", path=path, cpu_cores=3)
    submission = submit(alone, running, TaskState(job_key="waits", cpu_cores=2))
    wait_running(tmp_path / "job")

    def told() -> dict[str, Any]:
        jobs = {job["job_key"]: job for job in three_cores.paglets("jobs", "queue", "--json").json["jobs"]}
        return jobs if jobs["waits"]["reason_text"] else {}

    jobs = wait_until(told, what="the reason of the job that waits")
    assert jobs["runs"]["status"] == "RUNNING"
    assert jobs["runs"]["lease"]["cpu_cores"] == [0, 1, 2]
    assert jobs["runs"]["pid"] > 0
    assert jobs["waits"]["status"] == "WAITING_FOR_SLOT"
    assert "core" in jobs["waits"]["reason_text"]
    (tmp_path / "job.go").touch()
    assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 2


@pytest.mark.parametrize("pinned", [True, False])
def test_jobs_keep_to_their_cores_only_where_the_host_pins_them(mesh: Mesh, pinned: bool) -> None:
    config = mesh.folder / "mesh.toml"
    config.write_text(f"[hosts.pins]\ncpu_cores = {(os.cpu_count() or 1) + 64}\npin_cpus = {str(pinned).lower()}\n")
    host = mesh.start("pins", "--config", config)
    record = submit(host, TaskState(job_key="job")).drain(timeout=PATIENCE_SECONDS)["results"]["job"]
    usable = os.sched_getaffinity(0)
    assert set(record["result"]["usable_cores"]) == (usable & {0} or usable if pinned else usable)


def test_a_host_that_joins_late_takes_jobs_that_wait_elsewhere(mesh: Mesh, tmp_path: Path) -> None:
    laptop = mesh.start("laptop", "--cpu-cores", 1)
    first = mesh.start("first", "--peer", laptop.url, "--cpu-cores", 1, "--tag", "linux")
    mesh.wait_joined()
    path = tmp_path / "job"
    states = [TaskState(how="waits", path=str(path), required_host_tags=("linux",)) for _ in range(16)]
    submission = submit_compute_job_group(laptop.client, Task, states)
    wait_until(lambda: len(first.client.jobs()) == 16, what="the jobs to be placed")

    mesh.start("second", "--peer", laptop.url, "--cpu-cores", 2, "--tag", "linux")
    wait_running(path, 3)  # one, and two on the host that started late
    path.with_suffix(".go").touch()

    results = submission.drain(timeout=PATIENCE_SECONDS)["results"]
    by_host = [record["host_name"] for record in results.values()]
    assert len(results) == 16
    assert set(by_host) == {"first", "second"}
    assert by_host.count("second") >= 2


def test_thousands_of_jobs_that_cannot_run_hold_up_no_others(alone: HostProcess) -> None:
    many = [TaskState(job_key=f"never-{n:04d}", how="works", required_host_tags=("nowhere",)) for n in range(3_000)]
    few = [TaskState(job_key=f"few-{n}", how="works") for n in range(3)]
    submission = submit(alone, *many, *few)
    ended = [key for _, (key, _) in zip(few, submission.as_completed(timeout=PATIENCE_SECONDS), strict=False)]
    assert sorted(ended) == ["few-0", "few-1", "few-2"]
    assert alone.client.group(submission.group_id).completed_count == 3
    outcome = alone.client.cancel(submission.group_id)
    assert len(outcome.keys) == 3_003

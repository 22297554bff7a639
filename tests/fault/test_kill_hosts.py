"""Hosts killed with SIGKILL: acknowledged data persists, and work goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, Mesh, starts_of, wait_home, wait_running, wait_until
from tests.fault.hosts import ended

JOBS, HELD = 50, 8


def keys(count: int) -> list[str]:
    return [f"job-{nth:05d}" for nth in range(1, count + 1)]


def results(host: HostProcess, group_id: str) -> dict[str, Any]:
    """Return the results by job key as this host lists them. Each must exist once."""
    summary = host.client.summary(group_id)
    assert summary["failures"] == {}
    return {key: record["result"] for key, record in summary["results"].items()}


def test_jobs_end_and_the_collector_comes_home_though_the_submitter_was_killed(three: Mesh, tmp_path: Path) -> None:
    laptop, other = three["laptop"], three["linux-a"]
    states = [TaskState(how="waits", path=str(tmp_path / "job")) for _ in range(20)]
    submission = submit_compute_job_group(laptop.client, Task, states, return_home_when_complete=True)
    assert submission.wait_detached(PATIENCE_SECONDS), submission.detached_reason

    laptop.kill()
    (tmp_path / "job.go").touch()

    collector = other.client.group(submission.group_id).collector
    drained = other.client.call(collector, "drain")
    assert (drained["completed_count"], drained["failed_count"]) == (20, 0)
    assert {record["host_name"] for record in drained["results"].values()} == {"linux-a", "gpu-a"}
    wait_until(lambda: other.client.summary(submission.group_id)["waiting_for_home"], what="the collector to wait")
    before = results(other, submission.group_id)

    laptop.restart()

    wait_home(laptop, submission.group_id)
    assert results(laptop, submission.group_id) == before
    assert sorted(before) == keys(20)
    for name in ("laptop", "gpu-a"):
        shown = three.paglets("jobs", "groups", "--group", submission.group_id, "--json", "--at", name).json
        assert shown["completed_count"] == 20
        assert shown["collector"]["host_name"] == "laptop"


def submit_fifty(mesh: Mesh, path: Path, *, isolation: str, held: int = 0) -> Submission:
    """Submit fifty jobs on three hosts. Fewer than there are cores wait for the file `path`.go."""
    states = [TaskState(how="waits", path=str(path)) for _ in range(held)]
    states += [TaskState(how="works", seconds=0.2) for _ in range(JOBS - held)]
    for state in states:
        state.allow_home_compute = True
    return submit_compute_job_group(mesh["laptop"].client, Task, states, isolation=isolation)


def check_all_recorded_once(mesh: Mesh, submission: Submission) -> None:
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert (summary["expected_count"], summary["completed_count"], summary["failed_count"]) == (JOBS, JOBS, 0)
    assert sorted(summary["results"]) == keys(JOBS)
    assert {record["generation"] for record in summary["results"].values()} == {1}
    for host in mesh.running():
        assert sorted(results(host, submission.group_id)) == keys(JOBS)


@pytest.mark.parametrize(("victim", "isolation"), [("laptop", "worker"), ("linux-a", "process"), ("gpu-a", "worker")])
def test_fifty_jobs_have_one_record_each_though_a_host_was_killed(
    three: Mesh, tmp_path: Path, victim: str, isolation: str
) -> None:
    submission = submit_fifty(three, tmp_path / "job", isolation=isolation, held=HELD)
    teller = three["gpu-a" if victim == "linux-a" else "linux-a"]
    wait_until(lambda: ended(teller, submission) >= 5, what="the first jobs to end")

    three[victim].kill()
    (tmp_path / "job.go").touch()
    three[victim].restart()

    check_all_recorded_once(three, submission)


@pytest.mark.parametrize(
    ("kills", "isolation"),
    [((("linux-a", 3), ("laptop", 2)), "process"), ((("gpu-a", 2), ("gpu-a", 0)), "worker")],
    ids=["two hosts", "one host twice"],
)
def test_fifty_jobs_have_one_record_each_though_there_were_two_kills(
    three: Mesh, tmp_path: Path, kills: tuple[tuple[str, int], ...], isolation: str
) -> None:
    submission = submit_fifty(three, tmp_path / "job", isolation=isolation)
    for name, least in kills:
        victim = three[name]
        wait_until(partial(is_at_work, victim, least), what=f"{least} jobs to run on {name}")
        victim.kill()
        victim.restart()

    check_all_recorded_once(three, submission)


def is_at_work(host: HostProcess, least: int) -> bool:
    """Return True if at least this many jobs run there, or no more wait there."""
    told = host.client.slots(limit=JOBS)
    return told.running_jobs >= least or not told.jobs


def submit_to(host: HostProcess, state: TaskState) -> Submission:
    """Submit a group of this job, which runs on gpu-a. Its collector is there, too."""
    state.required_host_tags, state.allow_home_compute = ("gpu",), True
    return submit_compute_job_group(host.client, Task, [state], collector_host="gpu-a")


def test_a_killed_host_counts_as_a_loss_and_not_as_an_attempt_of_the_job(three: Mesh, tmp_path: Path) -> None:
    host = three["gpu-a"]
    state = TaskState(job_key="once", how="waits", path=str(tmp_path / "job"), max_attempts=1)
    submission = submit_to(host, state)
    wait_running(tmp_path / "job")

    host.kill()
    host.restart()
    wait_running(tmp_path / "job", 2)
    (row,) = host.rows("SELECT losses, failed_attempts, attempt FROM requests WHERE job_key = 'once'")
    (tmp_path / "job.go").touch()

    assert tuple(row) == (1, 0, 2)
    assert submission.drain(timeout=PATIENCE_SECONDS)["results"]["once"]["result"]["attempt"] == 2


def test_a_job_goes_on_from_its_checkpoint_after_its_host_was_killed(three: Mesh, tmp_path: Path) -> None:
    host = three["gpu-a"]
    state = TaskState(job_key="counts", how="counts", path=str(tmp_path / "job"), isolation="worker")
    submission = submit_to(host, state)
    wait_running(tmp_path / "job")  # it is at its third step

    host.kill()
    (tmp_path / "job.go").touch()
    host.restart()

    result = submission.drain(timeout=PATIENCE_SECONDS)["results"]["counts"]["result"]
    assert (result["done"], result["attempt"]) == (5, 2)
    # Restarted from the third checkpoint, it did not run the third step again.
    assert len(starts_of(tmp_path / "job")) == 1


def test_hosts_that_are_all_told_to_end_at_once_end(mesh: Mesh) -> None:
    """Send the signal at any moment and to any thread. The main thread must notice it. All meshes of tests end this
    way."""
    first = mesh.start("h0")
    hosts = [first, *(mesh.host(f"h{nth}", "--peer", first.url) for nth in (1, 2))]
    for host in hosts[1:]:
        host.spawn()
    for host in hosts:
        host.wait_ready()
    mesh.wait_joined()
    for host in hosts:
        assert host.process is not None
        host.process.terminate()
    assert [host.wait_ended() for host in hosts] == [0, 0, 0]

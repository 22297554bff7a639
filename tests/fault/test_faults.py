"""Faults other than a killed host: sleeping machines, processes killed one by one, everything at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mesh_jobs import Task, TaskState
from mesh_paglets import Notes, Teller, TellerState

from paglets.slots.model import ISOLATIONS
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, starts_of, wait_home, wait_running, wait_until
from tests.fault.hosts import asleep, is_online, zygotes


def test_the_group_is_answered_while_its_home_sleeps_and_goes_home_when_it_wakes(three: Mesh, tmp_path: Path) -> None:
    laptop, other = three["laptop"], three["gpu-a"]
    states = [TaskState(how="waits", path=str(tmp_path / "job")) for _ in range(12)]
    submission = submit_compute_job_group(laptop.client, Task, states, return_home_when_complete=True)
    assert submission.wait_detached(PATIENCE_SECONDS), submission.detached_reason

    with asleep(laptop):
        (tmp_path / "job.go").touch()
        collector = other.client.group(submission.group_id).collector
        drained = other.client.call(collector, "drain")
        assert drained["completed_count"] == 12
        wait_until(lambda: not is_online(other, "laptop"), what="the laptop to count as offline")
        wait_until(
            lambda: other.client.summary(submission.group_id)["waiting_for_home"],
            what="the collector to wait for its home",
        )

    wait_home(laptop, submission.group_id)
    assert laptop.client.summary(submission.group_id)["results"].keys() == drained["results"].keys()


def test_a_post_of_a_job_is_delivered_once_though_both_hosts_were_killed(three: Mesh, tmp_path: Path) -> None:
    source, target = three["laptop"], three["gpu-a"]
    notes = target.client.create(Notes)
    target.kill()
    said = tmp_path / "said"
    state = TellerState(job_key="teller", target=notes.ref, path=str(said), required_host_tags=("laptop",))
    state.allow_home_compute, state.isolation = True, "worker"
    submission = submit_compute_job_group(source.client, Teller, [state], collector_host="laptop")
    wait_until(said.exists, what="the job to have posted")

    source.kill()
    source.restart()
    target.restart()

    assert submission.drain(timeout=PATIENCE_SECONDS)["results"]["teller"]["attempt"] == 2
    wait_until(lambda: notes.info().state["total"] == 1, what="the post to come")
    wait_until(lambda: not source.rows("SELECT 1 FROM outbox"), what="the outbox to be empty")
    assert target.client.call(notes.ref, "add", amount=0) == 1


def test_a_job_killed_by_hand_fails_with_the_signal_and_frees_its_slot(three: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "job"
    state = TaskState(job_key="killed", how="waits", path=str(path), required_host_tags=("gpu",), cpu_cores=4)
    submission = submit_compute_job_group(three["laptop"].client, Task, [state])
    started = wait_running(path)

    os.kill(int(started[0][1]), signal.SIGKILL)

    failure = submission.drain(timeout=PATIENCE_SECONDS)["failures"]["killed"]
    assert failure["cause"] == "signal:SIGKILL"
    wait_until(lambda: three["gpu-a"].client.slots().free.cpu_cores == 4, what="the slot to be free")


def test_jobs_run_again_when_the_process_that_starts_them_was_killed(three: Mesh, tmp_path: Path) -> None:
    gpu, path = three["gpu-a"], tmp_path / "job"
    state = TaskState(job_key="again", how="waits", path=str(path), required_host_tags=("gpu",))
    submission = submit_compute_job_group(three["laptop"].client, Task, [state])
    wait_running(path)

    (zygote,) = zygotes(gpu)
    zygote.kill()

    wait_running(path, 2)
    (tmp_path / "job.go").touch()
    assert submission.drain(timeout=PATIENCE_SECONDS)["results"]["again"]["attempt"] == 2
    assert gpu.answers()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_job_that_kills_the_process_that_starts_jobs_fails_alone(three: Mesh, tmp_path: Path, isolation: str) -> None:
    path = tmp_path / "job"
    states = [
        TaskState(job_key=key, how=how, path=str(path), required_host_tags=("gpu",), max_losses=0)
        for key, how in (("killer", "kills_its_parent"), ("one", "waits"), ("two", "waits"))
    ]
    submission = submit_compute_job_group(three["laptop"].client, Task, states, isolation=isolation)
    wait_running(path, 3)

    (tmp_path / "job.kill").touch()

    wait_until(lambda: submission.summary()["failures"], what="the failure")
    (tmp_path / "job.go").touch()
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert {key: failure["cause"] for key, failure in summary["failures"].items()} == {"killer": "killed_launcher"}
    assert {key: result["attempt"] for key, result in summary["results"].items()} == {"one": 2, "two": 2}


def test_all_hosts_killed_at_once_and_started_in_any_order_finish_the_group(three: Mesh, tmp_path: Path) -> None:
    states = [TaskState(how="waits", path=str(tmp_path / "job"), allow_home_compute=True) for _ in range(60)]
    submission = submit_compute_job_group(three["laptop"].client, Task, states, isolation="worker")
    wait_until(lambda: {name for _, _, name in starts_of(tmp_path / "job")} == set(three.hosts), what="all to work")

    for host in three.running():
        host.kill()
    (tmp_path / "job.go").touch()
    for name in ("gpu-a", "laptop", "linux-a"):
        three[name].restart()

    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert (summary["completed_count"], summary["failed_count"]) == (60, 0)
    assert len(summary["results"]) == 60


def test_a_group_submitted_again_under_its_id_after_a_crash_is_the_same_group(three: Mesh) -> None:
    laptop = three["laptop"]

    def submit() -> str:
        states = [TaskState(job_key=f"job-{nth}") for nth in range(5)]
        return submit_compute_job_group(laptop.client, Task, states, group_id="nightly").group_id

    submit()
    laptop.kill()
    laptop.restart()
    assert submit() == "nightly"

    collector = laptop.client.group("nightly").collector
    assert laptop.client.call(collector, "drain")["expected_count"] == 5
    summary = laptop.client.summary("nightly")
    assert len(summary["results"]) == 5
    assert summary["duplicate_reports"] == []

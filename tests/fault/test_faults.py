"""Faults beside a killed host: machines that fall asleep, processes killed one by one, everything at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from mesh_jobs import Task, TaskState
from mesh_paglets import Notes, Teller, TellerState

from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import Mesh, wait_home, wait_until
from tests.fault.hosts import asleep, is_online, zygotes


def running_as(path: Path) -> list[list[str]]:
    """Of each start of a job that said so: attempt, pid, host."""
    said = path.with_name(f"{path.name}.running")
    return [line.split() for line in said.read_text().splitlines()] if said.exists() else []


def test_the_group_is_answered_while_its_home_sleeps_and_goes_home_when_it_wakes(three: Mesh) -> None:
    laptop, other = three["laptop"], three["gpu-a"]
    states = [TaskState(seconds=0.5) for _ in range(12)]
    submission = submit_compute_job_group(laptop.client, Task, states, return_home_when_complete=True)
    assert submission.wait_detached(20), submission.detached_reason

    with asleep(laptop):
        collector = other.client.group(submission.group_id).collector
        drained = other.client.call(collector, "drain", timeout_seconds=60)
        assert drained["completed_count"] == 12
        wait_until(lambda: not is_online(other, "laptop"), timeout_seconds=30, what="the laptop to count as offline")
        wait_until(
            lambda: other.client.summary(submission.group_id)["waiting_for_home"],
            timeout_seconds=40,
            what="the collector to wait for its home",
        )

    wait_home(laptop, submission.group_id, timeout_seconds=15)
    assert laptop.client.summary(submission.group_id)["results"].keys() == drained["results"].keys()


def test_a_post_of_a_job_is_delivered_once_though_both_hosts_were_killed(three: Mesh, tmp_path: Path) -> None:
    source, target = three["laptop"], three["gpu-a"]
    notes = target.client.create(Notes)
    target.kill()
    said = tmp_path / "said"
    state = TellerState(job_key="teller", target=notes.ref, path=str(said), required_host_tags=("laptop",))
    state.allow_home_compute = True
    submission = submit_compute_job_group(source.client, Teller, [state], collector_host="laptop")
    wait_until(said.exists, what="the job to have posted")

    source.kill()
    source.restart()
    target.restart()

    assert submission.drain(timeout=30)["results"]["teller"]["attempt"] == 2
    wait_until(lambda: notes.info().state["total"] == 1, what="the post to come")
    wait_until(lambda: not source.rows("SELECT 1 FROM outbox"), what="the outbox to be empty")
    assert target.client.call(notes.ref, "add", amount=0) == 1


def test_a_job_killed_by_hand_fails_with_the_signal_and_frees_its_slot(three: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "job"
    state = TaskState(job_key="killed", how="waits", path=str(path), required_host_tags=("gpu",), cpu_cores=4)
    submission = submit_compute_job_group(three["laptop"].client, Task, [state])
    started = wait_until(lambda: running_as(path), what="the job to run")

    os.kill(int(started[0][1]), signal.SIGKILL)

    failure = submission.drain(timeout=30)["failures"]["killed"]
    assert failure["cause"] == "signal:SIGKILL"
    wait_until(lambda: three["gpu-a"].client.slots().free.cpu_cores == 4, timeout_seconds=2, what="the slot to be free")


def test_jobs_run_again_when_the_process_that_starts_them_was_killed(three: Mesh, tmp_path: Path) -> None:
    gpu, path = three["gpu-a"], tmp_path / "job"
    state = TaskState(job_key="again", how="waits", path=str(path), required_host_tags=("gpu",))
    submission = submit_compute_job_group(three["laptop"].client, Task, [state])
    wait_until(lambda: running_as(path), what="the job to run")

    (zygote,) = zygotes(gpu)
    zygote.kill()

    wait_until(lambda: len(running_as(path)) == 2, what="the job to run again")
    (tmp_path / "job.go").touch()
    assert submission.drain(timeout=30)["results"]["again"]["attempt"] == 2
    assert gpu.answers()


def test_all_hosts_killed_at_once_and_started_in_any_order_finish_the_group(three: Mesh) -> None:
    states = [TaskState(seconds=0.1, allow_home_compute=True) for _ in range(60)]
    submission = submit_compute_job_group(three["laptop"].client, Task, states)
    wait_until(lambda: three["gpu-a"].client.identity().running_jobs > 0, what="jobs to run")

    for host in three.running():
        host.kill()
    for name in ("gpu-a", "laptop", "linux-a"):
        three[name].restart()

    summary = submission.drain(timeout=60)
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

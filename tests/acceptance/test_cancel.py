"""Cancelling: the command returns once the processes are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh, wait_running, wait_until


def submit(mesh: Mesh, states: list[TaskState]) -> str:
    for state in states:
        state.required_host_tags = ("linux",)
    return submit_compute_job_group(mesh["laptop"].client, Task, states).group_id


def failures(host: HostProcess, group_id: str) -> dict[str, Any]:
    found: dict[str, Any] = host.client.summary(group_id)["failures"]
    return found


def test_running_and_queued_jobs_of_a_group_end_and_say_who_ended_them(three: Mesh, tmp_path: Path) -> None:
    stubborn = [TaskState(job_key=f"stubborn-{nth}", how="ignores_the_end", path=str(tmp_path / "s")) for nth in (0, 1)]
    queued = [TaskState(job_key=f"queued-{nth}", how="works", seconds=600, cpu_cores=2) for nth in range(6)]
    never = TaskState(job_key="never", how="works", excluded_host_tags=("linux",))
    group_id = submit(three, [*stubborn, *queued, never])
    started = wait_running(tmp_path / "s", 2)

    done = three.paglets("jobs", "cancel", group_id, "--reason", "wrong data", "--at", "gpu-a")

    assert (done.code, done.out) == (0, f"{group_id}: cancelled 9 jobs\n"), done.err
    assert not [pid for _, pid, _ in started if Path(f"/proc/{pid}").exists()]
    for name in ("laptop", "linux-a", "gpu-a"):
        wait_until(lambda name=name: not three[name].client.jobs(), what=f"no job to be on {name}")  # type: ignore[misc]
    found = failures(three["laptop"], group_id)
    assert len(found) == 9
    assert {record["cause"] for record in found.values()} == {"cancelled"}
    message = found["never"]["message"]
    assert message.startswith("cancelled: by ")
    assert message.endswith(": wrong data")
    assert three.paglets("jobs", "why", f"{group_id}/never", "--at", "laptop").code == 7


def test_of_a_group_single_jobs_are_cancelled_and_what_has_ended_stays(three: Mesh, tmp_path: Path) -> None:
    waiting = [TaskState(job_key=key, how="waits", path=str(tmp_path / key)) for key in ("a", "b")]
    group_id = submit(three, [*waiting, TaskState(job_key="quick", how="works")])
    wait_running(tmp_path / "a")
    wait_until(lambda: "quick" in three["laptop"].client.summary(group_id)["results"], what="quick to end")

    done = three.paglets("jobs", "cancel", f"{group_id}/a", f"{group_id}/quick", "--at", "laptop")
    assert (done.code, done.out) == (0, f"{group_id}: cancelled 1 job\n"), done.err
    assert "1 already had a result" in done.err
    again = three.paglets("jobs", "cancel", f"{group_id}/a", "--at", "laptop", "--json")
    assert again.json["groups"][0]["keys"] == {"a": "already_cancelled"}
    (tmp_path / "b.go").touch()
    summary = three["laptop"].client.call(three["laptop"].client.group(group_id).collector, "drain")
    assert sorted(summary["results"]) == ["b", "quick"]
    assert sorted(summary["failures"]) == ["a"]
    unknown = three.paglets("jobs", "cancel", f"{group_id}/c", "--at", "laptop")
    assert (unknown.code, unknown.out) == (1, "")
    assert "has no job 'c'" in unknown.err
    assert f"jobs list {group_id} lists its jobs" in unknown.err
    both = three.paglets("jobs", "cancel", f"{group_id}/a", "typo", "--at", "laptop")
    assert (both.code, both.out) == (1, f"{group_id}: cancelled 0 jobs\n")
    assert "typo" in both.err


def test_a_host_that_is_away_is_named_and_its_job_ends_when_it_is_back(mesh: Mesh, tmp_path: Path) -> None:
    laptop = mesh.start("laptop")
    worker = mesh.start("worker", "--peer", laptop.url, "--tag", "linux")
    mesh.wait_joined()
    state = TaskState(job_key="a", how="waits", path=str(tmp_path / "a"), required_host_tags=("linux",))
    submission = submit_compute_job_group(laptop.client, Task, [state], collector_host="laptop")
    wait_until(
        lambda: [job["status"] for job in submission.summary()["pending_jobs"]] == ["RUNNING"],
        what="the collector to know that the job runs",
    )
    worker.kill()
    wait_until(lambda: [view.online for view in laptop.client.hosts()].count(True) == 1)
    done = mesh.paglets("jobs", "cancel", submission.group_id, "--timeout", "5", "--at", "laptop")
    assert done.code == 4
    assert "worker is unreachable; its jobs end when it is back" in done.err
    again = mesh.paglets("jobs", "cancel", submission.group_id, "--timeout", "5", "--at", "laptop")
    assert again.code == 4
    assert "worker is unreachable; its jobs end when it is back" in again.err
    told = mesh.paglets("jobs", "cancel", submission.group_id, "--timeout", "5", "--at", "laptop", "--json")
    assert json.loads(told.out)["groups"][0]["unreachable"] == ["worker is unreachable; its jobs end when it is back"]
    worker.restart()
    wait_until(lambda: not worker.client.jobs(), what="the job to end")
    wait_until(lambda: all(view.online for view in laptop.client.hosts()))
    back = mesh.paglets("jobs", "cancel", submission.group_id, "--at", "laptop")
    assert (back.code, back.out) == (0, f"{submission.group_id}: cancelled 0 jobs\n"), back.err
    assert submission.summary()["failures"]["a"]["cause"] == "cancelled"

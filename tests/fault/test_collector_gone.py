"""A group whose collector's host has died: its known state meanwhile, and ways to end its jobs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from mesh_jobs import Task, TaskState

from paglets.client.host_client import HostClient
from paglets.core.errors import GroupLost
from paglets.groups.keys import collector_id
from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import JOBS, PATIENCE_SECONDS, Finished, Mesh, starts_of, wait_running, wait_until
from tests.fault.hosts import forget, is_online

WAITING = Path(__file__).parent.parent / "acceptance" / "scripts" / "waiting.py"


def pids(folder: Path) -> list[str]:
    """Return the pids of the attempts that reported a start."""
    return [start[1] for key in ("a", "b") for start in starts_of(folder / key)]


def begun(mesh: Mesh, path: Path, group_id: str) -> Submission:
    """Start a group with its collector on gpu-a. On linux-a one of its jobs runs, and the other waits."""
    states = [
        TaskState(job_key=key, how="waits", path=str(path / key), excluded_host_tags=("gpu",), cpu_cores=3)
        for key in ("a", "b")
    ]
    client = mesh["laptop"].client
    submission = submit_compute_job_group(client, Task, states, group_id=group_id, collector_host="gpu-a")
    wait_until(lambda: len(mesh["linux-a"].client.jobs()) == 2 and pids(path), what="a to run")
    assert submission.wait_detached(PATIENCE_SECONDS)
    return submission


def test_jobs_of_a_collector_that_is_away_are_told_of_and_ended_by_force(three: Mesh, tmp_path: Path) -> None:
    submission = begun(three, tmp_path, "away")
    three["gpu-a"].kill()
    wait_until(lambda: not is_online(three["laptop"], "gpu-a"))

    why = three.paglets("jobs", "why", "away/a", "--at", "laptop")
    assert why.code == 0, why.err
    assert "RUNNING" in why.out or "WAITING_FOR_SLOT" in why.out
    assert "the collector of away is on gpu-a, last seen" in why.out
    groups = three.paglets("jobs", "groups", "--at", "laptop")
    assert "collector on gpu-a" in groups.out
    refused = three.paglets("jobs", "cancel", "away", "--at", "laptop")
    assert (refused.code, refused.out) == (4, "")
    assert "nothing was cancelled: " in refused.err
    assert len(three["linux-a"].client.jobs()) == 2

    done = three.paglets("jobs", "cancel", "away", "--force", "--at", "laptop")
    assert "away: ended 2 jobs on linux-a: a, b\n" in done.out, done.err
    assert done.code == 4
    assert "gpu-a may have more of away: " in done.err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids(tmp_path)), what="their processes to end")

    three["gpu-a"].restart()
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert {key: record["cause"] for key, record in summary["failures"].items()} == {"a": "cancelled", "b": "cancelled"}
    assert summary["failures"]["a"]["message"].endswith("while its collector could not be asked")
    wait_until(lambda: not three["linux-a"].client.jobs(), what="the reports to be taken")


def test_jobs_of_a_collector_that_was_forgotten_are_ended_at_once(three: Mesh, tmp_path: Path) -> None:
    submission = begun(three, tmp_path, "lost")
    three["gpu-a"].kill()
    assert forget(three, "gpu-a", at="laptop").code == 0
    why = three.paglets("jobs", "why", "lost", "--at", "linux-a")
    assert why.code == 0, why.err
    assert "jobs cancel lost" in why.out

    done = three.paglets("jobs", "cancel", "lost", "--at", "laptop")
    assert (done.code, done.out) == (0, "lost: ended 2 jobs on linux-a: a, b\n"), done.err
    assert "lost is cleared: it can be submitted again under the same group_id" in done.err
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids(tmp_path))
    assert three["linux-a"].client.jobs() == ()
    again = three.paglets("jobs", "cancel", "lost", "--at", "laptop")
    assert (again.code, again.out) == (1, ""), again.err

    three["gpu-a"].restart()
    summary = submission.drain(90)
    assert {record["cause"] for record in summary["failures"].values()} == {"cancelled"}


def test_a_script_that_waits_ends_when_the_host_of_its_collector_is_forgotten(three: Mesh, tmp_path: Path) -> None:
    said = three.logs / "script"
    path = tmp_path / "a"
    command = [three.python, WAITING, three["laptop"].url, "drained", "gpu-a", path, "waits"]
    environment = three.environment(PYTHONPATH=f"{three.archive}{os.pathsep}{JOBS}")
    with said.open("wb") as file:
        script = subprocess.Popen(list(map(str, command)), cwd=three.work, env=environment, stdout=file, stderr=file)
    try:
        wait_running(path)
        three["gpu-a"].kill()
        wait_until(lambda: "; waiting for it" in said.read_text(), what="the script to say what it waits for")
        assert "drained: the collector of drained is on gpu-a, last seen" in said.read_text()
        assert forget(three, "gpu-a", at="laptop").code == 0
        assert script.wait(PATIENCE_SECONDS) == 1
    finally:
        script.kill()
        script.wait()
    assert "Unreachable: the collector of drained was on gpu-a, which is no longer a host" in said.read_text()
    assert three.paglets("jobs", "cancel", "drained", "--at", "laptop").code == 0
    three["gpu-a"].restart()


def test_an_ended_job_whose_collector_is_away_shows_that_its_report_waits(three: Mesh, tmp_path: Path) -> None:
    submission = begun(three, tmp_path, "late")
    three["gpu-a"].kill()
    (tmp_path / "a.go").touch()
    (tmp_path / "b.go").touch()

    def waits() -> Finished | None:
        done = three.paglets("jobs", "why", "late/a", "--at", "laptop")
        return done if "it has ended, and its report waits" in done.out else None

    assert wait_until(waits, what="the report to wait").code == 0
    three["gpu-a"].restart()
    assert sorted(submission.drain(timeout=PATIENCE_SECONDS)["results"]) == ["a", "b"]


def test_the_rest_of_a_lost_group_is_listed_fetched_and_removed(three: Mesh, tmp_path: Path) -> None:
    """One of two jobs has a result with a file when the collector's host is lost. The other job runs on."""
    client = three["laptop"].client
    common = {"excluded_host_tags": ("gpu",)}
    states = [
        TaskState(job_key="a", how="makes_a_file", path=str(tmp_path / "a"), **common),
        TaskState(job_key="b", how="waits", path=str(tmp_path / "b"), **common),
    ]

    def submitted() -> Submission:
        return submit_compute_job_group(client, Task, states, group_id="again", collector_host="gpu-a")

    submission = submitted()
    wait_until(lambda: len(pids(tmp_path)) == 2, what="both to run")
    assert submission.wait_detached(PATIENCE_SECONDS)
    three["gpu-a"].kill()
    (tmp_path / "a.go").touch()
    wait_until(lambda: client.orphaned_group("again").counts.results, what="the result of a to wait")
    wait_until(lambda: not is_online(three["laptop"], "gpu-a"))
    away = submitted()
    assert (away.detached, "gpu-a" in away.detached_reason) == (False, True)
    assert forget(three, "gpu-a", at="laptop").code == 0
    with pytest.raises(GroupLost, match="jobs cancel again"):
        submitted()

    listed = three.paglets("jobs", "groups", "again", "--at", "laptop")
    assert listed.code == 4
    assert "1 result with 1 file" in listed.out
    assert "1 running" in listed.out
    shown = three.paglets("jobs", "show", "--json", "again/a", "--at", "laptop")
    artifact = json.loads(shown.out)["job_state"]["result"]["artifact"]
    fetched = three.paglets("artifacts", "get", "--group", "again", str(tmp_path / "files"), "--at", "laptop")
    assert fetched.code == 4, fetched.err
    assert (tmp_path / "files" / "a-made.bin").read_bytes() == b"made" * 1000
    one = three.paglets("artifacts", "get", artifact["artifact_id"], str(tmp_path / "one"), "--at", "linux-a")
    assert (one.code, (tmp_path / "one").read_bytes()) == (0, b"made" * 1000), one.err

    refused = three.paglets("jobs", "cancel", "again", "--at", "laptop")
    assert (refused.code, refused.out) == (1, "")
    assert "nothing was cancelled: 1 result with 1 file (3.9 KiB) of again would be dropped" in refused.err
    done = three.paglets("jobs", "cancel", "--force", "again", "--at", "laptop")
    assert done.code == 0, done.err
    assert "again: ended 1 job on linux-a: b\n" in done.out
    assert "again: cleared 1 result with 1 file (3.9 KiB) on linux-a\n" in done.out
    assert "again is cleared: it can be submitted again" in done.err
    assert three["linux-a"].client.jobs() == ()
    assert "again" not in three.paglets("jobs", "groups", "--at", "laptop").out

    (tmp_path / "b.go").touch()
    states = [TaskState(job_key=key, **common) for key in ("a", "b")]
    anew = submit_compute_job_group(client, Task, states, group_id="again")
    summary = anew.drain(timeout=PATIENCE_SECONDS)
    assert {key: record["generation"] for key, record in summary["results"].items()} == {"a": 1001, "b": 1001}
    assert summary["duplicate_reports"] == []

    three["gpu-a"].restart()
    wait_until(lambda: is_online(three["laptop"], "gpu-a"), what="gpu-a to be back")
    wait_until(lambda: collectors_of(client, "again") == ["linux-a"], what="the old collector to end")
    assert (anew.summary()["completed_count"], anew.status()) == (2, "COMPLETE")


def collectors_of(client: HostClient, group_id: str) -> list[str]:
    """Return the hosts that have a collector of the group."""
    return [view.host.name for view in client.paglets()[0] if view.agent_id == collector_id(group_id)]

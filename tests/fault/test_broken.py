"""Regressions: jobs that broke hosts or left something behind."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, MakeMesh, Mesh, wait_until
from tests.fault.hosts import zygotes


@pytest.fixture(scope="module")
def lone(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Return a host with one core. Tests share it and leave it as it was."""
    with make_mesh("lone") as mesh:
        mesh.start("alone", "--cpu-cores", 1, "--report-grace", 1)
        yield mesh


@contextmanager
def killed_at_last(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the process at the end of a test, whatever the result. Closing a Popen waits for its end."""
    try:
        yield
    finally:
        process.kill()


def test_a_host_whose_terminal_is_gone_starts_jobs_after_its_zygote_was_killed(mesh: Mesh, tmp_path: Path) -> None:
    host = mesh.host("alone", "--cpu-cores", "2")
    command = [mesh.python, str(mesh.archive), "host", "--name", "alone", "--port", "0"]
    with (
        subprocess.Popen(
            command, cwd=mesh.work, env=mesh.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process,
        killed_at_last(process),
    ):
        host.process, host.starts = process, 1
        host.wait_ready()
        assert process.stderr is not None
        process.stderr.close()

        for _ in range(2):
            (zygote,) = wait_until(lambda: zygotes(host), what="a zygote")
            zygote.kill()
            wait_until(lambda zygote=zygote: not zygote.is_running(), what="it to be buried")  # type: ignore[misc]

        submission = submit_compute_job_group(host.client, Task, [TaskState(job_key="one", allow_home_compute=True)])
        assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1
        host.end_by(signal.SIGTERM)
        assert "lost the zygote" in host.log_text()


@pytest.mark.parametrize("how", ["link", "link_to_nowhere", "file"])
def test_only_what_replaced_the_scratch_directory_is_removed(lone: Mesh, tmp_path: Path, how: str) -> None:
    host = lone["alone"]
    precious = tmp_path / "precious"
    precious.mkdir()
    precious.chmod(0o755)
    (precious / "data").touch()
    (precious / "data").chmod(0o644)
    state = TaskState(job_key="one", how=f"puts_a_{how}_in_the_place_of_its_scratch", path=str(precious))
    state.allow_home_compute = True

    submission = submit_compute_job_group(host.client, Task, [state])

    assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1
    wait_until(lambda: [each.name for each in (host.data / "work").rglob("*")] == [".trash"], what="an empty work/")
    assert precious.stat().st_mode & 0o777 == 0o755
    assert (precious / "data").stat().st_mode & 0o777 == 0o644


def test_a_reported_job_that_does_not_return_loses_its_slot_only(lone: Mesh) -> None:
    host = lone["alone"]
    states = [TaskState(job_key="stays", how="reports_and_stays"), TaskState(job_key="works")]
    for state in states:
        state.allow_home_compute = True
    submission = submit_compute_job_group(host.client, Task, states)
    assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 2
    wait_until(lambda: host.client.slots().free.cpu_cores == 1, what="the slot to be free")
    remark = "the process did not end within 1.0 s of its report, and was stopped"
    assert f"attempt: {remark} (job {submission.group_id}/stays, attempt 1)" in host.log_text()
    assert remark in lone.paglets("jobs", "show", f"{submission.group_id}/stays").out


@pytest.mark.parametrize("how", ["link_to_nowhere", "file"])
def test_a_failed_job_with_a_replaced_scratch_directory_is_retried(lone: Mesh, how: str) -> None:
    host = lone["alone"]
    states = [
        TaskState(job_key="breaks", how=f"puts_a_{how}_in_the_place_of_its_scratch_and_fails_twice", max_attempts=3),
        TaskState(job_key="works"),
    ]
    for state in states:
        state.allow_home_compute = True
    summary = submit_compute_job_group(host.client, Task, states).drain(timeout=PATIENCE_SECONDS)
    assert {key: record["attempt"] for key, record in summary["results"].items()} == {"breaks": 3, "works": 1}

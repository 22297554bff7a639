"""Jobs that fail, and jobs that leave processes behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, wait_running


def submit(mesh: Mesh, *states: TaskState) -> Submission:
    return submit_compute_job_group(mesh["laptop"].client, Task, states)


def test_each_bad_end_is_a_failure_with_its_cause_and_the_rest_complete(three: Mesh) -> None:
    submission = submit(
        three,
        TaskState(job_key="raises", how="raises"),
        TaskState(job_key="exits", how="exits"),
        TaskState(job_key="crashes", how="segfaults"),
        TaskState(job_key="asks-for-nothing", cpu_cores=0),
        *(TaskState(job_key=f"good-{nth}") for nth in range(4)),
    )
    assert [error.job_key for error in submission.creation_errors] == ["asks-for-nothing"]

    summary = submission.drain(timeout=PATIENCE_SECONDS)

    failures: dict[str, dict[str, Any]] = summary["failures"]
    assert {key: failure["cause"] for key, failure in failures.items()} == {
        "raises": "exception",
        "exits": "exit:3",
        "crashes": "signal:SIGSEGV",
        "asks-for-nothing": "invalid",
    }
    assert sorted(summary["results"]) == [f"good-{nth}" for nth in range(4)]
    assert "the data are wrong" in failures["raises"]["message"]
    assert "in raises" in failures["raises"]["traceback"]
    assert "about to raise" in failures["raises"]["stderr_tail"]
    assert "about to exit" in failures["exits"]["stderr_tail"]
    assert "about to crash" in failures["crashes"]["stderr_tail"]
    assert "cpu_cores" in failures["asks-for-nothing"]["message"]
    assert all(failure["host_name"] for failure in failures.values())


def test_the_commands_show_failures_with_their_causes(three: Mesh) -> None:
    submission = submit(three, TaskState(job_key="exits", how="exits"))
    submission.drain(timeout=PATIENCE_SECONDS)

    shown = three.paglets("jobs", "groups", "--group", submission.group_id, "--at", "laptop")
    why = three.paglets("jobs", "why", f"{submission.group_id}/exits", "--at", "gpu-a")

    assert shown.code == 0
    assert "exit:3" in shown.out
    assert why.code == 1
    assert "exit:3" in why.out
    assert "about to exit" in why.out


def test_a_class_that_no_host_can_import_is_a_failure_that_names_it(three: Mesh, tmp_path: Path) -> None:
    """A library that is installed where the script runs does not travel."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "only_here.py").write_text(
        "from paglets.remote.client import HostClient\n"
        "from paglets.system.compute_slots import *\n"
        "class State(CollectingComputeJobState): pass\n"
        "class Job(CollectingComputeJobPaglet[State]):\n"
        "    State = State\n"
        "    def run_compute_job(self): pass\n"
    )
    (tmp_path / "submit.py").write_text(
        "from only_here import *\n"
        "print(submit_compute_job_group(HostClient(), Job, [State(job_key='lost')]).drain(60)['failures']['lost'])\n"
    )

    done = three.script(tmp_path / "submit.py", PYTHONPATH=f"{three.archive}:{installed}", PAGLETS_AT="laptop")

    assert done.code == 0, done.err
    assert "'cause': 'import_failed'" in done.out
    assert "only_here:Job cannot be imported" in done.out
    assert "it did not come with the job: install it there" in done.out


def test_what_a_job_left_running_is_gone_when_it_has_ended(three: Mesh, tmp_path: Path) -> None:
    state = TaskState(job_key="daemon", how="leaves_a_daemon", path=str(tmp_path / "left"))
    summary = submit(three, state).drain(timeout=PATIENCE_SECONDS)
    assert list(summary["results"]) == ["daemon"]
    three.check_quiet()
    assert _has_ended(int((tmp_path / "left.daemon").read_text()))


def _has_ended(pid: int) -> bool:
    """Return True for a zombie, too: the first process of the machine may not have collected it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_scratch_is_gone_when_jobs_have_ended(three: Mesh) -> None:
    summary = submit(three, *(TaskState(how="writes") for _ in range(6))).drain(timeout=PATIENCE_SECONDS)
    assert summary["completed_count"] == 6
    three.check_quiet()


def test_a_job_that_ignores_sigterm_ends_with_its_host_and_runs_again_after_it(mesh: Mesh, tmp_path: Path) -> None:
    host = mesh.start("alone")
    state = TaskState(job_key="deaf", how="ignores_the_end", path=str(tmp_path / "deaf"))
    submit_compute_job_group(host.client, Task, [state])
    wait_running(tmp_path / "deaf")

    host.stop()

    assert not mesh.processes()
    host.restart()
    wait_running(tmp_path / "deaf", 2)


def test_a_host_goes_on_when_its_archive_is_replaced_or_deleted(mesh: Mesh, archive: Path, tmp_path: Path) -> None:
    mesh.archive = tmp_path / "paglets.pyz"
    mesh.archive.write_bytes(archive.read_bytes())
    host = mesh.start("alone")

    def runs_jobs() -> bool:
        jobs = [TaskState() for _ in range(3)]
        return submit_compute_job_group(host.client, Task, jobs).drain(timeout=PATIENCE_SECONDS)["completed_count"] == 3

    mesh.archive.write_bytes(b"another program")
    assert runs_jobs()
    mesh.archive.unlink()
    assert runs_jobs()
    assert host.answers()

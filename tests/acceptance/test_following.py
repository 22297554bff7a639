"""Commands that follow a group."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import JOBS, PATIENCE_SECONDS, Mesh, wait_until


def test_a_group_is_watched_to_its_end_and_the_exit_code_says_how_it_went(three: Mesh) -> None:
    states = [TaskState(job_key=f"j{nth}", how="works", seconds=0.3, required_host_tags=("linux",)) for nth in range(6)]
    bad = TaskState(job_key="bad", how="raises", required_host_tags=("linux",))
    group_id = submit_compute_job_group(three["laptop"].client, Task, [*states, bad]).group_id

    watched = three.paglets("jobs", "watch", group_id, "--at", "gpu-a")

    assert watched.code == 1, watched.err
    *lines, last = watched.out.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["bad", *(f"j{nth}" for nth in range(6))]
    assert re.fullmatch(rf"{group_id}: 6 done, 1 failed of 7 in [0-9.]+ s", last)
    waited = three.paglets("jobs", "wait", group_id, "--at", "laptop", "--json")
    assert waited.code == 1
    assert json.loads(waited.out) == {"group_id": group_id, "done": 6, "failed": 1, "cancelled": 0}
    status = three.paglets("jobs", "status", group_id, "--at", "laptop", "--json").json
    assert (status["completed_count"], status["failed"], status["pending"]) == (6, {"exception": 1}, {})
    history = three.paglets("jobs", "history", group_id, "--at", "linux-a", "--limit", "3", "--json").json
    assert len(history["ended"]) == 3
    assert [entry["number"] for entry in history["ended"]] == [7, 6, 5]


def test_a_group_that_does_not_end_in_time_is_exit_code_6(three: Mesh) -> None:
    never = TaskState(job_key="never", how="works", required_host_tags=("windows",))
    group_id = submit_compute_job_group(three["laptop"].client, Task, [never]).group_id
    late = three.paglets("jobs", "wait", group_id, "--timeout", "0.5", "--at", "laptop")
    assert late.code == 6
    assert "its jobs continue" in late.complaint
    assert three.paglets("jobs", "cancel", group_id, "--at", "laptop").code == 0
    assert three.paglets("jobs", "wait", group_id, "--at", "laptop").code == 7


WAITING = Path(__file__).parent / "scripts" / "waiting.py"


def test_a_waiting_script_on_a_terminal_shows_progress_and_the_first_failure(three: Mesh, tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    environment = three.environment(PYTHONPATH=f"{three.archive}{os.pathsep}{JOBS}", TERM="xterm", COLUMNS=100)
    command = [three.python, str(WAITING), three["laptop"].url, "drawn", "", str(tmp_path / "go"), "raises", "waits"]
    with subprocess.Popen(command, cwd=three.work, env=environment, stdout=terminal, stderr=terminal) as script:
        os.close(terminal)
        seen = ""
        try:
            while "; 1 job continues" not in seen or "pending of 2" not in seen:
                seen += os.read(screen, 65536).decode()
            (tmp_path / "go.go").touch()
            with suppress(OSError):  # the terminal ends with its last process
                while more := os.read(screen, 65536):
                    seen += more.decode()
            assert script.wait(PATIENCE_SECONDS) == 0, seen
        finally:
            script.kill()
            os.close(screen)
    lines = seen.replace("\r\n", "\n").replace("\r\x1b[K", "\n").splitlines()
    assert "drawn: j0-raises failed on linux-a: ValueError: the data are wrong; 1 job continues" in lines
    assert "drawn  [##########          ]  0 done, 1 failed, 1 pending of 2" in lines
    assert re.search(
        r"\ndrawn: 1 done, 1 failed of 2 in [0-9.]+ s\n+next: .* jobs why drawn\n+drained 1$", "\n".join(lines)
    )


def test_results_of_many_mebibytes_in_all_are_whole_in_drain_and_commands(three: Mesh) -> None:
    """A result that is reported by a message is kept like the report of a job, and needs no process."""
    states = [TaskState(job_key=f"k{nth:03d}", required_host_tags=("windows",)) for nth in range(400)]
    submission = submit_compute_job_group(three["laptop"].client, Task, states, group_id="many")
    for state in states:
        submission.collector.post("job_result", job_key=state.job_key, result="x" * 50_000)

    drained = submission.drain(PATIENCE_SECONDS)["results"]

    assert {key: len(record["result"]) for key, record in drained.items()} == {one.job_key: 50_000 for one in states}
    assert len(three.paglets("jobs", "groups", "many", "--json", "--at", "gpu-a").json["results"]) == 400
    shown = three.paglets("jobs", "groups", "many", "--at", "linux-a")
    assert (shown.code, "350 more done: " in shown.err) == (0, True), shown.err


def test_results_that_alone_are_larger_than_a_summary_are_in_drain_and_shown(three: Mesh) -> None:
    size = 20 << 20
    states = [TaskState(job_key=key, padding_bytes=size, required_host_tags=("linux",)) for key in ("a", "b")]
    submission = submit_compute_job_group(three["laptop"].client, Task, states, group_id="large")
    drained = submission.drain(PATIENCE_SECONDS)["results"]
    assert {key: len(record["result"]["padding"]) for key, record in drained.items()} == {"a": size, "b": size}
    job = three.paglets("jobs", "show", "large/a", "--at", "laptop")
    assert (job.code, "COMPLETED" in job.out) == (0, True), job.err


def test_the_load_of_all_hosts_is_shown(three: Mesh) -> None:
    def told() -> tuple[list[str], list[Any]]:
        top = three.paglets("jobs", "top", "--json", "--at", "laptop").json
        return [slots["host"]["name"] for slots in top["hosts"]], top["jobs"]

    # Jobs of other tests may be about to end.
    wait_until(lambda: told() == (["gpu-a", "laptop", "linux-a"], []), what="three hosts, and none at work")

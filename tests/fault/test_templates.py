"""Templates of a real host: attempts share an import, and none is charged or left behind when a template dies."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from paglets.worker.host.template_pool import RETRY_SECONDS
from tests.acceptance.rig import HostProcess, Mesh, is_template, wait_until

SCRIPT = """\
import sys
import time
from pathlib import Path

{body}
from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)

if __name__ != "__main__":
    with open({imports!r}, "a") as file:
        file.write("x")


class Job(CollectingComputeJobPaglet[CollectingComputeJobState]):
    State = CollectingComputeJobState

    def run_compute_job(self):
        while not Path({go!r}).exists():
            time.sleep(0.05)
        return self.state.job_key


if __name__ == "__main__":
    states = [CollectingComputeJobState(job_key=f"k{{number}}") for number in range(6)]
    submission = submit_compute_job_group(HostClient(), Job, states, group_id="six")
    if "wait" in sys.argv:
        assert submission.drain(120)["completed_count"] == 6
"""


@pytest.fixture
def host(mesh: Mesh) -> HostProcess:
    return mesh.start("one", "--cpu-cores", 2)


def script(folder: Path, body: str = "") -> Path:
    path = folder / "many.py"
    path.write_text(SCRIPT.format(body=body, imports=str(folder / "imports"), go=str(folder / "go")))
    return path


def templates(host: HostProcess) -> list[psutil.Process]:
    found = []
    for process in host.mesh.processes():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += [process] if is_template(process, [host.pid]) else []
    return found


def wait_running(host: HostProcess, count: int) -> None:
    wait_until(lambda: host.client.slots().running_jobs == count, what=f"{count} jobs to run")
    wait_until(lambda: len(host.rows("SELECT 1 FROM runs WHERE pid IS NOT NULL")) == count, what="their processes")


def drain(host: HostProcess) -> None:
    """Wait until all six jobs have completed. Each may run once, so it would have failed if its loss counted."""
    wait_until(lambda: host.client.summary("six")["completed_count"] == 6, what="six jobs to complete")


def test_six_jobs_of_a_script_import_it_once(host: HostProcess, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    assert host.mesh.script(script(tmp_path), "wait").code == 0
    assert (tmp_path / "imports").read_text() == "x"
    assert "import" not in host.mesh.paglets("jobs", "show", "six/k3").out.split()
    assert len(templates(host)) == 1
    assert "of memory used by 1 preloaded job module" in host.mesh.paglets("doctor").out


def test_jobs_show_says_why_each_attempt_imports_the_module(host: HostProcess, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    body = "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    assert host.mesh.script(script(tmp_path, body), "wait").code == 0
    assert len((tmp_path / "imports").read_text()) == 7
    assert "because its import left a thread" in host.mesh.paglets("jobs", "show", "six/k3").out
    wait_until(lambda: not templates(host), what="the end of the template")


def test_jobs_of_a_killed_template_run_again_and_are_not_charged(host: HostProcess, tmp_path: Path) -> None:
    assert host.mesh.script(script(tmp_path)).code == 0
    wait_running(host, 2)
    (template,) = templates(host)

    template.kill()

    wait_until(lambda: not templates(host), what="the end of the template")
    (tmp_path / "go").touch()
    drain(host)


def test_a_killed_template_is_made_again_after_a_pause(host: HostProcess, tmp_path: Path) -> None:
    assert host.mesh.script(script(tmp_path)).code == 0
    wait_running(host, 2)
    (template,) = templates(host)

    template.kill()

    made_again_at = time.monotonic() + RETRY_SECONDS[0]
    wait_until(
        lambda: len((tmp_path / "imports").read_text()) == 3, what="two attempts to import the module themselves"
    )
    wait_until(lambda: time.monotonic() > made_again_at, what="the end of the pause")
    (tmp_path / "go").touch()
    drain(host)
    assert len((tmp_path / "imports").read_text()) == 4
    assert len(templates(host)) == 1


def test_a_killed_host_leaves_no_template(host: HostProcess, tmp_path: Path) -> None:
    assert host.mesh.script(script(tmp_path)).code == 0
    wait_running(host, 2)
    (template,) = templates(host)
    (row,) = host.rows("SELECT pid FROM templates")
    assert row["pid"] == template.pid

    host.kill()
    host.restart()

    assert not template.is_running()
    assert template.pid not in [row["pid"] for row in host.rows("SELECT pid FROM templates")]
    (tmp_path / "go").touch()
    drain(host)

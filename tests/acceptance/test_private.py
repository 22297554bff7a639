"""Data of a host is private to its user, whatever the umask and the folder. Jobs have the umask of their user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Return all paths on which others have any right, except those that Python makes in a job's process.

    The host may remove files in the meantime, such as the empty log of a job.
    """
    found = []
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            if not path.is_symlink() and "__pycache__" not in path.parts and (mode := path.lstat().st_mode) & 0o077:
                found.append(f"{path} {mode:o}")
    return found


def test_nothing_of_a_host_is_open_to_others_and_jobs_have_the_umask_of_its_start(mesh: Mesh, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    host = mesh.host("x", "--data-dir", data, "--cores", 1)
    with umask(0):
        host.spawn()
    host.wait_ready()
    state = TaskState(job_key="one", how="opens_a_file", path=str(tmp_path / "made"), allow_home_compute=True)
    with host.client as client:
        summary = submit_compute_job_group(client, Task, [state], inputs={"input": Path(__file__)}).drain(
            timeout=PATIENCE_SECONDS
        )
        assert summary["completed_count"] == 1
        assert [open_to_others(folder) for folder in (data, mesh.home)] == [[], []]
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o666
        assert str(data) in (tmp_path / "made").read_text()
    said = host.stop()
    assert said.count(f"other users could enter {data} (mode 0755); changed to 0700") == 1


def test_a_home_that_others_can_write_to_is_refused_before_it_is_read(mesh: Mesh) -> None:
    mesh.home.mkdir()
    (mesh.home / "cache").mkdir()
    mesh.home.chmod(0o777)
    done = mesh.paglets("host", "--name", "x", "--port", "0")
    assert done.code == 2
    assert f"run `chmod 700 {mesh.home}`" in done.complaint
    assert [path.name for path in mesh.home.rglob("*")] == ["cache"]


def test_init_writes_a_file_for_its_user_only(mesh: Mesh) -> None:
    with umask(0):
        done = mesh.paglets("init", "--name", "x")
    assert done.code == 0, done.err
    assert stat.S_IMODE((mesh.work / "hosts.toml").stat().st_mode) == 0o600

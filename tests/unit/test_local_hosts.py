"""Run files of local hosts: the file of an ended host is ignored, even if another process has its pid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from host_rig import OFFERED

from paglets.host.datadir import run_file
from paglets.host.runtime.services import Settings
from paglets.wire.local_hosts import broken_run_files, running_hosts, start_of

DEAD = 2**22 + 1
"""A pid that no system uses."""

SETTINGS = Settings(
    store_id="s",
    boot_id="s-1",
    boot_count=1,
    name="home",
    url="http://home:8765",
    mesh_version="test",
    started_at=0.0,
    offered=OFFERED,
    pid=os.getpid(),
)

known = pytest.mark.skipif(not start_of(os.getpid()), reason="the system does not tell when a process began")


def running(home: Path, **fields: object) -> list[str]:
    (home / "run").mkdir()
    tree = {"name": "x", "url": "http://127.0.0.1:1", "store_id": "s", **fields}
    (home / "run" / "x.json").write_text(json.dumps(tree))
    return [host.name for host in running_hosts(home)]


def test_a_host_whose_process_lives_is_found(tmp_path: Path) -> None:
    assert running(tmp_path, pid=os.getpid(), began=start_of(os.getpid())) == ["x"]


def test_a_host_whose_process_is_gone_is_not(tmp_path: Path) -> None:
    assert running(tmp_path, pid=DEAD, began="boot 1") == []


@known
def test_a_host_whose_number_another_process_has_by_now_is_not(tmp_path: Path) -> None:
    earlier = start_of(os.getpid()).rsplit(" ", 1)[0] + " 1"
    assert running(tmp_path, pid=os.getpid(), began=earlier) == []


def test_where_the_beginning_is_not_known_a_living_process_is_believed(tmp_path: Path) -> None:
    assert running(tmp_path, pid=os.getpid()) == ["x"]


@pytest.mark.parametrize("content", ["", "{garbage", "[]", '{"name": "x"}'])
def test_a_file_that_is_no_run_file_is_left_out_and_named(tmp_path: Path, content: str) -> None:
    assert running(tmp_path, pid=os.getpid()) == ["x"]
    (tmp_path / "run" / "y.json").write_text(content)
    (tmp_path / "run" / "x.store").write_text("{}")
    assert [host.name for host in running_hosts(tmp_path)] == ["x"]
    (line,) = broken_run_files(tmp_path)
    assert line.startswith(f"ignored {tmp_path / 'run' / 'y.json'}: it is no run file")


@pytest.mark.parametrize("content", ["{garbage", "[]", '{"pid": 1}'])
def test_a_host_that_ends_leaves_what_is_not_its_run_file(tmp_path: Path, content: str) -> None:
    remove = run_file.write(tmp_path, SETTINGS)
    path = tmp_path / "run" / "home.json"
    path.write_text(content)
    remove()
    assert path.read_text() == content
    assert run_file.repair(tmp_path, SETTINGS).startswith(f"{path} was removed or changed")
    remove()
    assert not path.exists()

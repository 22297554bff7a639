"""The warning of a host that starts empty although a host of its name had a store here."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from paglets.core.clock import SystemEntropy
from paglets.core.errors import StoreDamaged
from paglets.host.datadir import damage, last_store
from paglets.host.datadir.data_directory import open_data_directory


def started(home: Path, path: Path) -> str:
    """Start host `w1` and return its warning."""
    with open_data_directory(path, SystemEntropy(), lambda error: None) as folder:
        said = last_store.warning_of(home, "w1", folder)
        last_store.remember(home, "w1", folder)
        return said


def test_a_data_directory_that_is_gone_is_told_once_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "w1"
    assert started(tmp_path, path) == ""
    assert started(tmp_path, path) == ""
    shutil.rmtree(path)
    said = started(tmp_path, path)
    assert f"STARTS EMPTY, as a new host: {path} has no data" in said
    assert "not mounted" in said
    assert started(tmp_path, path) == ""


def test_another_folder_for_the_name_is_told_and_the_first_one_again_is_not(tmp_path: Path) -> None:
    assert started(tmp_path, tmp_path / "a") == ""
    assert str(tmp_path / "a") in started(tmp_path, tmp_path / "b")
    assert started(tmp_path, tmp_path / "a") == ""


def test_what_was_moved_aside_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "w1"
    started(tmp_path, path)
    (path / damage.DATABASE).write_bytes(b"")
    with suppress(StoreDamaged):
        started(tmp_path, path)
    assert started(tmp_path, path) == ""


def test_a_file_that_is_none_of_ours_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w1.store").write_text("text")
    assert started(tmp_path, tmp_path / "w1") == ""

"""The log folder of a host: its content and its limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paglets.host.datadir.disk import HostDisk
from paglets.host.datadir.logs import BLOCK_BYTES, LogFolder
from paglets.worker.logs import LogWriter
from tests.fakes.logs import logger_to


def put(folder: Path, agent_id: str, name: str, size: int, used_at: float) -> Path:
    path = folder / agent_id / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (used_at, used_at))
    return path


def test_the_attempts_whose_logs_are_there_are_told(tmp_path: Path) -> None:
    for name in ("1.2.out", "1.2.err", "1.10.out.000004194304", "notes.txt", "1.x.out", "1.3.log"):
        put(tmp_path, "j1", name, 1, 1.0)
    folder = LogFolder(tmp_path)
    assert folder.attempts("j1") == ((1, 2), (1, 10))
    assert folder.attempts("unknown") == ()


def test_beyond_the_bound_the_logs_not_used_for_longest_go_and_those_at_work_stay(tmp_path: Path) -> None:
    old = put(tmp_path, "old", "1.1.out", 10 * BLOCK_BYTES, 1.0)
    at_work = put(tmp_path, "busy", "1.1.out", 10 * BLOCK_BYTES, 2.0)
    used = put(tmp_path, "used", "1.1.out", 10 * BLOCK_BYTES, 3.0)
    used_late = put(tmp_path, "used", "1.1.out.000004194304", 10 * BLOCK_BYTES, 9.0)
    middle = put(tmp_path, "old", "1.2.err", 10 * BLOCK_BYTES, 4.0)
    new = put(tmp_path, "new", "1.1.out", 10 * BLOCK_BYTES, 8.0)
    folder = LogFolder(tmp_path)
    running = frozenset([("busy", 1, 1)])

    assert folder.trim(60 * BLOCK_BYTES, 1000, lambda: running) == 0
    assert folder.trim(45 * BLOCK_BYTES, 1000, lambda: running) == 2

    assert [path.exists() for path in (old, at_work, used, used_late, middle, new)] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]


def test_very_many_small_logs_are_bounded_too_and_their_folders_go(tmp_path: Path) -> None:
    for nth in range(50):
        put(tmp_path, f"j{nth}", "1.1.out", 0, float(nth))
    folder = LogFolder(tmp_path)
    folder.trim(20 * BLOCK_BYTES, 1000, frozenset)
    folder.trim(20 * BLOCK_BYTES, 1000, frozenset)
    assert sorted(os.listdir(tmp_path)) == sorted(f"j{nth}" for nth in range(32, 50))


def test_the_number_of_logs_is_bounded_and_those_used_last_stay(tmp_path: Path) -> None:
    for nth in range(50):
        put(tmp_path, f"j{nth:02d}", "1.1.out", 1, float(nth))
    folder = LogFolder(tmp_path)
    assert folder.trim(1 << 30, 50, frozenset) == 0
    assert folder.trim(1 << 30, 40, frozenset) == 14
    assert sorted(os.listdir(tmp_path)) == sorted(f"j{nth}" for nth in range(14, 50))


def test_a_log_in_which_nothing_was_written_leaves_nothing(tmp_path: Path) -> None:
    out, err = (LogWriter(str(tmp_path / "j1" / f"1.1.{stream}")) for stream in ("out", "err"))
    out.open()
    err.write(memoryview(b"oh"))
    out.close()
    err.close()
    assert os.listdir(tmp_path / "j1") == ["1.1.err"]
    LogWriter(str(tmp_path / "j2" / "1.1.out")).close()
    assert os.listdir(tmp_path) == ["j1"]
    again = LogWriter(str(tmp_path / "j1" / "1.1.err"))
    again.close()
    assert (tmp_path / "j1" / "1.1.err").read_bytes() == b"oh"


def test_a_log_whose_folder_went_is_begun_again(tmp_path: Path) -> None:
    path = str(tmp_path / "j1" / "1.0.out")
    for _ in range(2):
        log = LogWriter(path)
        log.write(memoryview(b"text"))
        log.close()
        assert os.path.exists(path)
        os.unlink(path)
        os.rmdir(tmp_path / "j1")


@pytest.fixture
def disk(tmp_path: Path) -> HostDisk:
    return HostDisk(tmp_path, lambda act: act(), logger_to(lambda text: None))


def test_the_disk_reads_what_was_written_where_it_says(disk: HostDisk) -> None:
    log = LogWriter(disk.log_path("j1", 1, 3, "err"))
    log.write(memoryview(b"oh"))
    log.close()
    assert disk.logs("j1") == ((1, 3),)
    assert disk.read_log("j1", 1, 3, "err", 1, 10).data == b"h"
    disk.trim_logs(0, 1000, frozenset)
    assert disk.logs("j1") == ()

"""Full disks in the code of users: detection, and the consequences for the attempt."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from paglets.host.records import disk_full_policy
from paglets.host.records.disk_full_policy import UNASKED_BYTES
from paglets.worker.child import disk_full
from paglets.worker.child.faults import entry_fault_of
from paglets.worker.scratch import empty_scratch

GIB = 1 << 30


@pytest.mark.parametrize(
    ("times", "scratch", "asked", "what"),
    [
        (0, 0, 0, "again"),
        (2, 0, 0, "again"),
        (3, 0, 0, "failed"),
        (0, UNASKED_BYTES, 0, "again"),
        (0, UNASKED_BYTES + 1, 0, "limit"),
        (0, 4 * GIB, 4 * GIB, "again"),
        (0, 4 * GIB + 1, 4 * GIB, "limit"),
        (3, 4 * GIB + 1, 4 * GIB, "limit"),
    ],
)
def test_a_job_within_its_request_is_placed_again_three_times(times: int, scratch: int, asked: int, what: str) -> None:
    assert disk_full_policy.verdict(times, scratch, asked) == what


def test_pauses_grow() -> None:
    assert [disk_full_policy.pause_seconds(times) for times in (1, 2, 3, 4)] == [5.0, 60.0, 300.0, 300.0]


@pytest.mark.parametrize(
    ("number", "device", "is_full", "of_host"),
    [
        (errno.ENOSPC, 7, False, True),
        (errno.ENOSPC, 8, True, False),
        (errno.ENOSPC, None, True, True),
        (errno.ENOSPC, None, False, False),
        (errno.EDQUOT, None, False, True),
        (errno.EDQUOT, 8, False, False),
        (errno.EIO, 7, True, False),
        (None, 7, True, False),
    ],
)
def test_only_a_file_system_of_the_host_that_is_full_is_no_fault_of_the_job(
    number: int | None, device: int | None, is_full: bool, of_host: bool
) -> None:
    assert disk_full.is_of_host(number, device, frozenset({7}), is_full) is of_host


def test_the_file_that_an_error_names_need_not_be_there(tmp_path: Path) -> None:
    work = tmp_path / "work" / "j1"
    work.mkdir(parents=True)
    error = OSError(errno.ENOSPC, "No space left on device", str(work / "not" / "there"))
    assert entry_fault_of(error, str(work)).cause == "disk_full"
    assert entry_fault_of(OSError(errno.ENOSPC, "No space left on device", "/proc/x"), str(work)).cause == "exception"


def test_only_the_scratch_directory_is_emptied(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    for folder in (work / "deep", other):
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(bytes(1000))
    (work / "file").touch()
    (work / "link").symlink_to(other)
    empty_scratch(str(work))
    assert list(work.iterdir()) == []
    assert (other / "data").exists()
    work.rmdir()
    work.symlink_to(other)
    empty_scratch(str(work))
    assert (other / "data").exists()


def test_what_an_error_came_of_counts_as_well(tmp_path: Path) -> None:
    error = RuntimeError("cannot save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    assert entry_fault_of(error, str(tmp_path)).cause == "disk_full"

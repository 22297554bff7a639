"""The data-directory monitor: it recreates items, reports a problem once, or ends the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paglets.core.errors import EXIT_UNDECIDED, PagletsError, StoreUndecided
from paglets.host.datadir.monitor import DataDirectoryMonitor, Repair
from paglets.slots.eligibility import Reason


class Rig:
    def __init__(self, path: Path) -> None:
        self.folder = path / "host"
        self.folder.mkdir()
        (self.folder / "paglets.db").write_bytes(b"rows")
        self.blocked_reason: Reason | None = None
        self.made: list[str] = []
        self.problem: OSError | StoreUndecided | None = None
        self.said: list[str] = []
        self.gone: list[PagletsError] = []
        repair = Repair(what="a folder", repair=self.repair)
        self.watch = DataDirectoryMonitor(
            self.folder, (repair,), lambda: self.blocked_reason, self.said.append, self.gone.append
        )

    def repair(self) -> str:
        if self.problem is not None:
            raise self.problem
        return self.made.pop() if self.made else ""

    def look(self, times: int = 3) -> list[str]:
        """Run some checks and return the messages that they reported."""
        before = len(self.said)
        for _ in range(times):
            self.watch.check()
        return self.said[before:]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_host_whose_ground_is_there_hears_nothing(rig: Rig) -> None:
    assert rig.look() == []
    assert rig.gone == []


def test_what_was_recreated_is_reported(rig: Rig) -> None:
    rig.made = ["recreated"]
    assert rig.look() == ["recreated"]


def test_a_failed_repair_and_a_blocked_host_are_reported_once_each(rig: Rig) -> None:
    rig.problem = PermissionError(13, "Permission denied", "work")
    rig.blocked_reason = Reason(code="disk_closed", text="work is not there")
    assert rig.look() == [
        "a folder cannot be recreated: [Errno 13] Permission denied: 'work'",
        "this host starts no processes: work is not there",
    ]
    rig.problem, rig.blocked_reason = None, None
    assert rig.look() == ["this host starts processes again"]


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_database(folder: Path) -> None:
    (folder / "paglets.db").unlink()


def put_another_in_its_place(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    shutil.copytree(folder.with_name("away"), folder)


@pytest.mark.parametrize("harm", [remove, remove_database, put_another_in_its_place])
def test_without_its_database_a_host_ends_and_says_so_once(rig: Rig, harm: object) -> None:
    harm(rig.folder)  # type: ignore[operator]
    rig.made = ["a folder in the place of another's"]
    assert rig.look(5) == []
    (error,) = rig.gone
    assert error.exit_code == EXIT_UNDECIDED
    assert str(rig.folder) in error.message
    assert any("starts empty" in line for line in error.advice())


def test_a_host_whose_folder_another_one_has_ends_at_once_and_looks_at_nothing_more(rig: Rig) -> None:
    taken = StoreUndecided("another host runs in this folder by now")
    rig.problem, rig.blocked_reason = taken, Reason(code="disk_closed", text="work is not there")
    assert rig.look(1) == []
    assert rig.gone == [taken]
    rig.problem, rig.made = None, ["recreated"]
    assert rig.look() == []
    assert rig.gone == [taken]


def test_a_directory_that_is_away_for_a_moment_ends_nothing(rig: Rig) -> None:
    rig.folder.rename(rig.folder.with_name("away"))
    rig.look(1)
    rig.folder.with_name("away").rename(rig.folder)
    rig.look()
    rig.folder.rename(rig.folder.with_name("away"))
    rig.look(1)
    assert rig.gone == []

"""The data directory of a host: detection of damage, moving it aside, and the messages of later starts."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from paglets.core.clock import SystemEntropy
from paglets.core.errors import EXIT_UNDECIDED, StartFailed, StoreDamaged, StoreUndecided
from paglets.host.datadir import damage
from paglets.host.datadir.data_directory import DataDirectory, open_data_directory
from paglets.host.datadir.lock import DataDirectoryLock


def ignore(error: BaseException) -> None:
    """Ignore a fatal error of the store."""


def opened(path: Path) -> DataDirectory:
    with open_data_directory(path, SystemEntropy(), ignore) as folder:
        return folder


def cut_off(path: Path, at: Path) -> None:
    """Copy the directory to `at` while a host uses it, as a power failure would leave it."""
    with open_data_directory(path, SystemEntropy(), ignore):
        shutil.copytree(path, at)


def moved(path: Path) -> list[str]:
    (found,) = damage.damages(path)
    return sorted(each.name for each in found.path.iterdir())


def test_a_directory_that_is_opened_again_is_the_same_store_and_has_nothing_to_say(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert first.store_id == second.store_id
    assert (first.boot_count, second.boot_count) == (1, 2)
    assert (second.notes, second.damaged_at) == ((), "")
    assert damage.read_note(tmp_path) == damage.StoreNote(store_id=first.store_id, boot_count=2)


@pytest.mark.parametrize("how", ["empty", "gone", "damaged"])
def test_a_damaged_database_is_moved_aside_once_and_the_next_start_is_empty(tmp_path: Path, how: str) -> None:
    first = opened(tmp_path)
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "logs").mkdir()
    database = tmp_path / damage.DATABASE
    if how == "gone":
        database.unlink()
    else:
        database.write_bytes(b"" if how == "empty" else b"no database" * 1000)

    with pytest.raises(StoreDamaged, match="starts empty"):
        opened(tmp_path)

    expected = {"blobs", "work", damage.NOTE, damage.WHY} | (set() if how == "gone" else {damage.DATABASE})
    assert expected <= set(moved(tmp_path))
    assert not (tmp_path / "blobs").exists()
    assert (tmp_path / "logs").is_dir()
    anew = opened(tmp_path)
    assert anew.store_id != first.store_id
    assert anew.damaged_at.endswith("UTC")
    assert str(database) in anew.notes[0]
    shutil.rmtree(tmp_path / damage.FOLDER)
    assert opened(tmp_path).notes == ()


def test_a_database_without_its_wal_is_reported_once_and_then_used(tmp_path: Path) -> None:
    path, copy = tmp_path / "host", tmp_path / "copy"
    first = opened(path)
    cut_off(path, copy)
    (copy / damage.WAL).unlink()

    with pytest.raises(StoreDamaged, match=r"records 1 start, and this host has had 2"):
        opened(copy)

    with open_data_directory(copy, SystemEntropy(), ignore) as again:
        assert again.store_id == first.store_id
        assert again.boot_count == 3
        assert "is outdated" in again.notes[-1]
        # Others remember numbers of posts that were used: those to come are far above.
        jumped = again.store.read(lambda tx: tx.value("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'"))
        assert jumped >= 1_000_000


def test_a_wal_that_is_put_back_after_the_warning_is_all_that_is_needed(tmp_path: Path) -> None:
    path, copy = tmp_path / "host", tmp_path / "copy"
    opened(path)
    cut_off(path, copy)
    (copy / damage.WAL).rename(tmp_path / "wal")
    with pytest.raises(StoreDamaged):
        opened(copy)
    (tmp_path / "wal").rename(copy / damage.WAL)
    assert opened(copy).boot_count == 3


def test_a_first_start_whose_wal_was_removed_is_no_new_host(tmp_path: Path) -> None:
    path, copy = tmp_path / "host", tmp_path / "copy"
    cut_off(path, copy)
    (copy / damage.WAL).unlink()
    with pytest.raises(StoreDamaged, match="lost its content"):
        opened(copy)


def test_a_start_that_was_cut_off_loses_nothing_and_says_nothing(tmp_path: Path) -> None:
    path, copy = tmp_path / "host", tmp_path / "copy"
    cut_off(path, copy)
    assert opened(copy).boot_count == 2
    assert opened(copy).notes == ()


def test_what_cannot_be_moved_aside_stays_and_no_start_begins_anew(
    tmp_path: Path,
) -> None:
    opened(tmp_path)
    (tmp_path / damage.DATABASE).write_bytes(b"")
    (tmp_path / damage.FOLDER).write_text("a file where the folder should be")
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="could not be moved aside"):
            opened(tmp_path)
    assert (tmp_path / damage.NOTE).exists()


def test_where_all_but_one_thing_can_be_moved_each_start_goes_on_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Path, target: Path) -> None:
        """Fail for `blobs` as if it were a mount point."""
        if Path(source).name == "blobs":
            raise OSError(16, "Device or resource busy")
        real(source, target)

    real = os.rename
    opened(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / damage.DATABASE).write_bytes(b"no database" * 1000)
    monkeypatch.setattr(os, "rename", rename)
    said = []
    for _ in range(3):
        with pytest.raises(StoreUndecided) as told:
            opened(tmp_path)
        said.append(told.value.message)
    monkeypatch.undo()

    (place,) = (tmp_path / damage.FOLDER).iterdir()
    assert {*moved(tmp_path)} == {damage.WHY, damage.DATABASE, "work"}
    for each in said:
        assert "not a database" in each, "the first reason, not what the first move made of it"
        assert f"moved to {place}: {damage.DATABASE}, work; not moved: blobs (" in each

    # Its person moves it, and that is all.
    shutil.move(tmp_path / "blobs", place / "blobs")
    with pytest.raises(StoreUndecided, match="starts empty"):
        opened(tmp_path)
    assert {*moved(tmp_path)} == {damage.WHY, damage.DATABASE, "work", "blobs", damage.NOTE}
    assert opened(tmp_path).boot_count == 1


def test_an_interrupted_move_that_was_nearly_finished_is_not_reused(tmp_path: Path) -> None:
    for text in (b"first " * 1000, b"second " * 1000):
        opened(tmp_path)
        (tmp_path / damage.DATABASE).write_bytes(text)
        with pytest.raises(StoreUndecided):
            opened(tmp_path)
        if text.startswith(b"first"):
            (place,) = (tmp_path / damage.FOLDER).iterdir()
            place.rename(place.with_name(f"{place.name}.part"))
    found = sorted(each.path for each in damage.damages(tmp_path))
    assert {(path / damage.DATABASE).read_bytes()[:5] for path in found} == {b"first", b"secon"}


def test_who_accepted_one_older_database_is_asked_again_of_a_still_older_one(tmp_path: Path) -> None:
    path, oldest, older = tmp_path / "host", tmp_path / "oldest.db", tmp_path / "older.db"
    for copy in (oldest, older):
        opened(path)
        shutil.copyfile(path / damage.DATABASE, copy)
    opened(path)
    for copy, boots in ((older, 2), (oldest, 1)):
        shutil.copyfile(copy, path / damage.DATABASE)
        with pytest.raises(StoreUndecided, match=f"records {boots} start"):
            opened(path)
    assert opened(path).boot_count == 4


def test_the_database_of_another_host_is_refused_and_nothing_is_moved(tmp_path: Path) -> None:
    mine, other = opened(tmp_path / "mine"), opened(tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / damage.DATABASE, tmp_path / "mine" / damage.DATABASE)
    before = {each: each.read_bytes() for each in (tmp_path / "mine").glob("[ps]*")}
    with pytest.raises(StoreUndecided, match=f"store {other.store_id}.*store {mine.store_id}.*Next") as told:
        opened(tmp_path / "mine")
    assert told.value.exit_code == EXIT_UNDECIDED
    assert {each: each.read_bytes() for each in (tmp_path / "mine").glob("[ps]*")} == before
    assert not (tmp_path / "mine" / damage.FOLDER).exists()


def test_a_second_host_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with (
        open_data_directory(tmp_path, SystemEntropy(), ignore),
        pytest.raises(StartFailed, match="another host is running in"),
        open_data_directory(tmp_path, SystemEntropy(), ignore),
    ):
        pass


def test_a_lock_that_was_removed_is_made_anew_and_keeps_the_second_host_out(tmp_path: Path) -> None:
    with open_data_directory(tmp_path, SystemEntropy(), ignore) as folder:
        assert folder.lock.repair() == ""
        (tmp_path / "lock").unlink()
        assert folder.lock.repair() == f"{tmp_path / 'lock'} was removed and has been recreated"
        assert folder.lock.repair() == ""
        with pytest.raises(StartFailed, match="another host is running in"):
            DataDirectoryLock(tmp_path)
    opened(tmp_path)


def test_a_host_whose_lock_another_one_has_by_now_must_end_and_notes_nothing_there(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        folder = first.enter_context(open_data_directory(tmp_path, SystemEntropy(), ignore))
        (tmp_path / "lock").unlink()
        other = second.enter_context(open_data_directory(tmp_path, SystemEntropy(), ignore))
        with pytest.raises(StoreUndecided, match=r"another host now runs in this folder\nhint: ") as told:
            folder.lock.repair()
        assert told.value.exit_code == EXIT_UNDECIDED
        first.close()
        assert damage.read_note(tmp_path) == damage.StoreNote(store_id=other.store_id, boot_count=2, running=True)
        assert other.lock.repair() == ""


def test_a_host_that_ends_before_its_removed_lock_is_made_anew_notes_that_it_ended(tmp_path: Path) -> None:
    with open_data_directory(tmp_path, SystemEntropy(), ignore):
        (tmp_path / "lock").unlink()
    assert opened(tmp_path).notes == ()


def before_the_next_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Run an action once between the opening and the locking of the lock file."""
    flock = fcntl.flock

    def lock(file: Any, how: int) -> None:
        monkeypatch.undo()
        act()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock)


def test_a_start_that_opened_a_lock_which_was_made_anew_since_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataDirectoryLock(tmp_path) as lock:

        def remove_and_mend() -> None:
            (tmp_path / "lock").unlink()
            assert "has been recreated" in lock.repair()

        before_the_next_lock(monkeypatch, remove_and_mend)
        with pytest.raises(StartFailed, match="another host is running in"):
            DataDirectoryLock(tmp_path)


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_next_lock(monkeypatch, (tmp_path / "lock").unlink)
    with DataDirectoryLock(tmp_path) as lock:
        (tmp_path / "lock").unlink()
        before_the_next_lock(monkeypatch, (tmp_path / "lock").unlink)
        lock.repair()
        with pytest.raises(StartFailed, match="another host is running in"):
            DataDirectoryLock(tmp_path)


def test_a_lock_that_cannot_be_had_at_all_is_not_taken_for_another_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(StartFailed, match=r"cannot be used: .*No locks available"):
        opened(tmp_path)


def test_a_lock_that_is_removed_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (tmp_path / "lock").unlink())
    with pytest.raises(OSError, match="was replaced 10 times while it was being locked"):
        DataDirectoryLock(tmp_path)


PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to(path.with_name("elsewhere")),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_lock_that_is_not_a_plain_file_is_named_and_blocks_nobody(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "lock"
    told = re.escape(f"{lock} cannot be locked: it is {kind}, not a regular file; remove it")
    with open_data_directory(tmp_path, SystemEntropy(), ignore) as folder:
        lock.unlink()
        PLACES[kind](lock)
        with pytest.raises(OSError, match=f"^{told}$"):
            folder.lock.repair()
        assert not folder.lock.is_lost()
    with pytest.raises(StartFailed, match=f"cannot be used: {told}\nhint: choose another one with --data-dir"):
        opened(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    lock.rmdir() if kind == "a folder" else lock.unlink()
    assert opened(tmp_path).notes == ()


def test_a_lock_file_of_a_process_that_is_gone_and_a_draft_of_the_note_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711")
    (tmp_path / f"{damage.NOTE}.new").write_text("half")
    with suppress(OSError):
        os.utime(tmp_path / "lock", (0, 0))
    assert opened(tmp_path).boot_count == 1


def test_a_folder_of_damage_that_was_emptied_is_no_damage_any_more(tmp_path: Path) -> None:
    (tmp_path / "damaged" / "20261127T020112Z").mkdir(parents=True)
    assert damage.damages(tmp_path) == ()
    (tmp_path / "damaged" / "20261127T020112Z" / "why.txt").write_text("it was empty")
    assert [each.why for each in damage.damages(tmp_path)] == ["it was empty"]

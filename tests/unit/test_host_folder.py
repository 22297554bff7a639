"""A host's directory: what is told from none, what is moved aside, and what a later start says of it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from paglets.core.clock import SystemEntropy
from paglets.core.errors import StartFailed, StoreDamaged
from paglets.host import damage
from paglets.host.folder import HostFolder, open_folder


def ignore(error: BaseException) -> None:
    """Of a store that dies."""


def opened(path: Path) -> HostFolder:
    with open_folder(path, SystemEntropy(), ignore) as folder:
        return folder


def cut_off(path: Path, at: Path) -> None:
    """`at` becomes the directory as it is while a host has it: as after a power failure."""
    with open_folder(path, SystemEntropy(), ignore):
        shutil.copytree(path, at)


def moved(path: Path) -> list[str]:
    (found,) = damage.damages(path)
    return sorted(each.name for each in found.path.iterdir())


def test_a_directory_that_is_opened_again_is_the_same_store_and_has_nothing_to_say(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert first.store_id == second.store_id
    assert (first.boot_count, second.boot_count) == (1, 2)
    assert (second.notes, second.began_anew) == ((), "")
    assert damage.read_note(tmp_path) == damage.Note(store_id=first.store_id, boot_count=2)


@pytest.mark.parametrize("how", ["empty", "gone", "damaged"])
def test_what_is_damaged_is_moved_aside_once_and_the_next_start_begins_anew_and_says_so(
    tmp_path: Path, how: str
) -> None:
    first = opened(tmp_path)
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "logs").mkdir()
    database = tmp_path / damage.DATABASE
    if how == "gone":
        database.unlink()
    else:
        database.write_bytes(b"" if how == "empty" else b"no database" * 1000)

    with pytest.raises(StoreDamaged, match="begins anew"):
        opened(tmp_path)

    expected = {"blobs", "work", damage.NOTE, damage.WHY} | (set() if how == "gone" else {damage.DATABASE})
    assert expected <= set(moved(tmp_path))
    assert not (tmp_path / "blobs").exists()
    assert (tmp_path / "logs").is_dir()
    anew = opened(tmp_path)
    assert anew.store_id != first.store_id
    assert anew.began_anew.endswith("UTC")
    assert str(database) in anew.notes[0]
    shutil.rmtree(tmp_path / damage.FOLDER)
    assert opened(tmp_path).notes == ()


def test_a_database_whose_last_changes_were_removed_with_its_wal_is_told_once_and_then_used(tmp_path: Path) -> None:
    path, copy = tmp_path / "host", tmp_path / "copy"
    first = opened(path)
    cut_off(path, copy)
    (copy / damage.WAL).unlink()

    with pytest.raises(StoreDamaged, match=r"knows of 1 starts of this host, and there were 2"):
        opened(copy)

    with open_folder(copy, SystemEntropy(), ignore) as again:
        assert again.store_id == first.store_id
        assert again.boot_count == 3
        assert "of an earlier moment" in again.notes[-1]
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
    with pytest.raises(StoreDamaged, match="there was one"):
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


def test_a_second_host_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path, SystemEntropy(), ignore),
        pytest.raises(StartFailed, match="another host runs in"),
        open_folder(tmp_path, SystemEntropy(), ignore),
    ):
        pass


def test_a_lock_file_of_a_process_that_is_gone_and_a_draft_of_the_note_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711")
    (tmp_path / f"{damage.NOTE}.new").write_text("half")
    with suppress(OSError):
        os.utime(tmp_path / "lock", (0, 0))
    assert opened(tmp_path).boot_count == 1

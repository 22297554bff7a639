"""Published files of a process: a blob is never a file that a process can still write to."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts.folder import BlobFolder
from paglets.core.content import hash_file
from paglets.core.errors import NoRoom, PagletsError
from paglets.core.refs import BlobRef
from paglets.worker.child.publishing import BlobPublisher, Publication
from paglets.worker.child.zero_copy import move_back
from tests.fakes.logs import logger_to

linux = pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="only Linux grants leases")


class Rig:
    """The process of an attempt, with `scratch`, on a host with `blobs`."""

    def __init__(self, path: Path) -> None:
        self.scratch = path / "scratch"
        for folder in (path / "host", self.scratch):
            folder.mkdir()
        self.blobs = BlobFolder(path / "host", logger_to(print))
        self.before_staging: Callable[[], None] = lambda: None
        self.refusal: PagletsError | None = None
        self.rooms: list[str] = []
        self.published: list[BlobRef] = []
        self.problems: list[str] = []
        self.meanwhile: Callable[[float], None] = lambda seconds: None
        self.publisher = BlobPublisher(
            "token", self.answer, lambda mtime_ns: None, self.scratch, lambda seconds: self.meanwhile(seconds)
        )
        self.copying = BlobPublisher("token-2", self.answer, lambda mtime_ns: None)
        self.source = self.scratch / "out.db"
        self.source.write_bytes(b"rows")
        self.source.chmod(0o640)
        os.utime(self.source, ns=(5, 5))

    def answer(self, operation: str, args: Any) -> Any:
        if operation == "reserve_space":
            self.rooms.append(args.staged)
            self.problems.append(args.problem)
            self.before_staging()
            return {"folder": self.blobs.staging()}
        assert operation == "publish"
        if self.refusal is not None:
            raise self.refusal
        self.published.append(args.blob)
        self.blobs.adopt(args.staged, args.blob)
        return None

    def move(self, path: Path | None = None) -> Publication:
        return self.publisher.publish(path or self.source, move=True)

    def blob(self, ref: BlobRef) -> Path:
        return Path(self.blobs.path(ref.sha256))

    def is_intact(self, ref: BlobRef) -> bool:
        return hash_file(self.blob(ref)) == ref

    def is_untouched(self) -> bool:
        """Return True if the source is unchanged and in its place, with one link, and nothing else is left."""
        found = self.source.stat()
        assert list(Path(self.blobs.staging()).iterdir()) == []
        assert os.listdir(self.scratch) == ["out.db"]
        return (self.source.read_bytes(), found.st_mode & 0o777, found.st_mtime_ns, found.st_nlink) == (
            b"rows",
            0o640,
            5,
            1,
        )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# Files that are moved.


@linux
def test_a_closed_file_of_an_attempt_is_moved_and_not_copied(rig: Rig) -> None:
    before = rig.source.stat()
    publication = rig.move()
    assert not rig.source.exists()
    publication.commit()
    after = rig.blob(publication.blob).stat()
    assert (after.st_ino, after.st_nlink, after.st_mode & 0o777) == (before.st_ino, 1, 0o600)
    assert rig.is_intact(publication.blob)
    assert os.listdir(rig.scratch) == []


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database whose 1,000 rows are all in its WAL file."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE squares (n)")
    database.executemany("INSERT INTO squares VALUES (?)", ((n,) for n in range(1000)))
    database.commit()
    return database


def rows_in(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM squares").fetchone()[0])


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_open_database_is_published_with_all_rows_and_moved_with_its_wal(
    rig: Rig, capsys: pytest.CaptureFixture[str], is_kept: bool
) -> None:
    path = rig.scratch / "squares.db"
    with closing(open_database(path)):
        publication = rig.move(path)
        assert path.exists()
        publication.commit() if is_kept else publication.rollback()
        left = sorted(os.listdir(rig.scratch))
    assert rows_in(rig.blob(publication.blob)) == 1000
    assert left == ["out.db"] if is_kept else ["out.db", "squares.db", "squares.db-shm", "squares.db-wal"]
    assert capsys.readouterr().err == ""
    assert list(Path(rig.blobs.staging()).iterdir()) == []


def test_a_database_that_is_written_to_after_it_was_published_stays(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rig.scratch / "squares.db"
    with closing(open_database(path)) as database:
        publication = rig.move(path)
        with database:
            database.execute("INSERT INTO squares VALUES (1)")
        publication.commit()
        assert path.exists()
    assert "squares.db was not removed: it changed while it was moved" in capsys.readouterr().err


def test_a_file_that_this_process_has_open_for_writing_is_named(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    text = "paglets: out.db is still open for writing: close it before paglets reads it\n"
    with rig.source.open("ab"):
        rig.copying.publish(rig.source, move=False)
    assert capsys.readouterr().err == text
    with rig.source.open("rb"):
        rig.copying.publish(rig.source, move=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_is_still_in_a_buffer_is_not_in_the_blob(rig: Rig, is_kept: bool) -> None:
    path = rig.scratch / "out.txt"
    with path.open("w") as file:
        file.write("the result")
        publication = rig.move(path)
        publication.commit() if is_kept else publication.rollback()
    assert publication.blob == BlobRef(sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0)
    assert rig.is_intact(publication.blob)
    assert path.exists() != is_kept


@linux
@pytest.mark.parametrize("opened", [True, False])
def test_a_file_that_somebody_reaches_while_it_is_taken_is_copied(rig: Rig, opened: bool) -> None:
    def reach() -> None:
        rig.before_staging = lambda: None
        if opened:
            # A non-blocking open fails; a blocking one would wait for the end of the lease and write then.
            with pytest.raises(BlockingIOError):
                os.open(rig.source, os.O_WRONLY | os.O_NONBLOCK)
        else:
            (rig.scratch / "second").hardlink_to(rig.source)

    rig.before_staging = reach
    inode = rig.source.stat().st_ino
    publication = rig.move()
    assert rig.source.stat().st_ino == inode != rig.blob(publication.blob).stat().st_ino
    publication.commit()
    assert not rig.source.exists()
    assert rig.is_intact(publication.blob)


def test_a_file_of_two_names_or_outside_of_the_scratch_is_copied(rig: Rig, tmp_path: Path) -> None:
    (rig.scratch / "second").hardlink_to(rig.source)
    (tmp_path / "outside").mkdir()
    (rig.scratch / "link").symlink_to(tmp_path / "outside")
    outside = rig.scratch / "link" / "out.db"
    outside.write_bytes(b"other rows")
    for path in (rig.source, outside):
        inode = path.stat().st_ino
        publication = rig.move(path)
        assert path.stat().st_ino == inode != rig.blob(publication.blob).stat().st_ino
        publication.commit()
        assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of two users")
def test_a_file_of_another_user_is_copied(rig: Rig) -> None:
    os.chown(rig.source, 65534, 65534)
    publication = rig.move()
    assert (rig.source.stat().st_uid, rig.blob(publication.blob).stat().st_uid) == (65534, os.geteuid())


# End of the process.


def test_a_process_that_dies_before_the_commit_leaves_its_file_in_scratch(rig: Rig) -> None:
    publication = rig.copying.publish(rig.source, move=True)
    assert rig.is_untouched()
    rig.source.write_bytes(b"ROWS")
    assert rig.is_intact(publication.blob)


def test_an_attempt_that_writes_under_the_same_name_meanwhile_writes_another_file(rig: Rig) -> None:
    publication = rig.move()
    rig.source.write_bytes(b"ROWS")
    assert rig.is_intact(publication.blob)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_is_refused_is_as_it_was(rig: Rig, is_known: bool) -> None:
    if is_known:
        rig.blobs.put(b"rows")
    publication = rig.move()
    publication.rollback()
    assert rig.is_untouched()
    rig.source.write_bytes(b"ROWS")
    assert rig.is_intact(publication.blob)


@pytest.mark.parametrize("step", ["reserve_space", "publish"])
def test_a_file_that_cannot_be_published_is_as_it_was(rig: Rig, step: str) -> None:
    def refuse() -> None:
        raise NoRoom("full")

    if step == "reserve_space":
        rig.before_staging = refuse
    else:
        rig.refusal = NoRoom("full")
    inode = rig.source.stat().st_ino
    with pytest.raises(NoRoom, match="full"):
        rig.move()
    assert rig.is_untouched()
    assert rig.source.stat().st_ino == inode


@linux
def test_a_file_that_is_refused_by_a_full_disk_can_be_read_and_moved_again(rig: Rig) -> None:
    publication = rig.move()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        publication.rollback()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (rig.source.read_bytes(), rig.source.stat().st_mode & 0o777) == (b"rows", 0o400)
    rig.move().commit()
    assert rig.is_intact(publication.blob)
    assert not rig.source.exists()


@linux
def test_a_file_is_not_put_back_over_a_newer_one(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    publication = rig.move()
    rig.source.write_bytes(b"newer")
    publication.rollback()
    assert rig.source.read_bytes() == b"newer"
    assert "out.db cannot be moved back" in capsys.readouterr().err


def without_links(staged: Path, source: Path) -> None:
    """Fail like a file system without links."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_file_is_put_back_where_the_file_system_has_no_links(tmp_path: Path) -> None:
    staged, source = tmp_path / "staged", tmp_path / "out.db"
    staged.write_bytes(b"rows")
    move_back(staged, source, without_links)
    assert (source.read_bytes(), staged.exists()) == (b"rows", False)
    staged.write_bytes(b"older")
    with pytest.raises(PermissionError):
        move_back(staged, source, without_links)
    assert source.read_bytes() == b"rows"


# Reserved space.


@linux
def test_a_file_that_is_taken_and_then_copied_asks_for_room_once(rig: Rig) -> None:
    def reach() -> None:
        rig.before_staging = lambda: None
        (rig.scratch / "second").hardlink_to(rig.source)

    rig.before_staging = reach
    rig.move()
    assert rig.rooms == ["token.1", "token.1"]


@linux
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_a_file_of_another_file_system_asks_for_room_once(rig: Rig) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder) / "out.db"
        source.write_bytes(b"rows")
        publisher = BlobPublisher("token", rig.answer, lambda mtime_ns: None, Path(folder))
        assert rig.is_intact(publisher.publish(source, move=True).blob)
    assert len(set(rig.rooms)) == 1


def test_a_file_that_changes_while_it_is_copied_is_published_once(rig: Rig) -> None:
    def change() -> None:
        rig.before_staging = lambda: None
        rig.source.write_bytes(b"ROWS")

    rig.before_staging = change
    blob = rig.copying.publish_copy(rig.source).blob
    assert blob.sha256 == hashlib.sha256(b"ROWS").hexdigest()
    assert rig.rooms == ["token-2.1", "token-2.1"]
    assert rig.published == [blob]


# A folder of the host that is closed temporarily.


def shut(rig: Rig) -> Path:
    """Replace the staging folder by a file until the first pause."""
    staging = Path(rig.blobs.staging())
    staging.rename(staging.with_name("away"))
    staging.write_text("in its place")

    def opened(seconds: float) -> None:
        staging.unlink()
        staging.with_name("away").rename(staging)
        rig.meanwhile = lambda seconds: None

    rig.meanwhile = opened
    return staging


@pytest.mark.parametrize("move", [True, False])
def test_an_attempt_writes_again_when_the_folder_of_its_host_is_open(rig: Rig, move: bool) -> None:
    staging = shut(rig)
    publication = rig.publisher.publish(rig.source, move=move)
    publication.commit()
    assert rig.is_intact(publication.blob)
    assert rig.problems[-2:] == ["", f"{staging} is not a folder"]
    assert rig.source.exists() is not move
    assert list(staging.iterdir()) == []


def test_bytes_of_an_attempt_are_written_again_too(rig: Rig) -> None:
    shut(rig)
    assert rig.is_intact(rig.publisher.publish_bytes(b"rows"))


def test_what_is_no_attempt_does_not_wait(rig: Rig) -> None:
    shut(rig)
    with pytest.raises(PagletsError, match=r"part of the path is not a folder|Not a directory"):
        rig.copying.publish(rig.source, move=False)

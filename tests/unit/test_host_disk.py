"""The removal of scratch directories, however jobs leave them, and of moved sources; nothing else is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.core.content import SourceStat, stat_of
from paglets.core.record import INT_BOUND
from paglets.host.datadir.disk import FOLDERS, HostDisk
from paglets.store.files import Removal
from tests.fakes.logs import logger_to

posix = pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def disk(tmp_path: Path, said: list[str]) -> HostDisk:
    (tmp_path / "host").mkdir()
    return HostDisk(tmp_path / "host", lambda act: act(), logger_to(said.append))


@posix
@pytest.mark.parametrize(
    "put", [lambda path, target: path.symlink_to(target), lambda path, target: path.write_text("")]
)
def test_what_a_job_put_in_the_place_of_its_directory_goes(
    disk: HostDisk, said: list[str], tmp_path: Path, put: Callable[[Path, Path], object]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    (precious / "data").touch()
    work = Path(disk.prepare("j1", fresh=True))
    shutil.rmtree(work)
    put(work, precious)

    disk.discard("j1")

    assert list((tmp_path / "host" / "work" / ".trash").iterdir()) == []
    assert said == []
    assert precious.stat().st_mode & 0o777 == 0o755
    assert (precious / "data").exists()


def test_an_empty_directory_goes_without_the_trash(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    disk = HostDisk(tmp_path, later.append, logger_to(lambda text: None))
    later.clear()
    disk.prepare("j1", fresh=True)
    disk.discard("j1")
    assert (disk.scratch_ids(), later) == ((), [])


@posix
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "put",
    [
        lambda path, there: path.symlink_to("/nowhere"),
        lambda path, there: path.symlink_to(there),
        lambda path, there: path.touch(),
    ],
    ids=["link to nowhere", "link", "file"],
)
def test_in_the_place_of_what_a_job_put_there_is_an_empty_directory(
    disk: HostDisk, tmp_path: Path, put: Callable[[Path, Path], object], fresh: bool
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    work = Path(disk.prepare("j1", fresh=True))
    work.rmdir()
    put(work, precious)

    assert disk.prepare("j1", fresh=fresh) == str(work)

    assert (work.is_symlink(), work.is_dir(), list(work.iterdir())) == (False, True, [])
    assert (precious / "data").exists()


def test_what_cannot_be_removed_is_told_once(disk: HostDisk, tmp_path: Path, said: list[str]) -> None:
    """Simulate a mount or an immutable file, which stays whatever its permissions."""
    stays = tmp_path / "host" / "work" / ".trash" / "j1"
    for nth in range(3):
        disk._say_left(str(stays), OSError(1, "Operation not permitted"))
        assert len(said) == 1, nth
    disk._say_left(str(stays / "other"), OSError(1, "Operation not permitted"))
    assert len(said) == 2


@posix
def test_a_directory_without_rights_to_itself_goes(disk: HostDisk, tmp_path: Path, said: list[str]) -> None:
    work = Path(disk.prepare("j1", fresh=True))
    (work / "data").touch()
    work.chmod(0o000)
    disk.prepare("j1", fresh=True)
    assert list(work.iterdir()) == []
    assert list((tmp_path / "host" / "work" / ".trash").iterdir()) == []
    assert said == []


@posix
def test_a_directory_without_rights_goes_and_what_its_links_name_keeps_its_rights(
    disk: HostDisk, said: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.touch(mode=0o640)
    closed = Path(disk.prepare("j1", fresh=True)) / "closed"
    closed.mkdir()
    (closed / "soft").symlink_to(data)
    (closed / "hard").hardlink_to(data)
    closed.chmod(0o500)

    disk.discard("j1")

    assert list((tmp_path / "host" / "work" / ".trash").iterdir()) == []
    assert said == []
    assert data.stat().st_mode & 0o777 == 0o640


def removal(path: Path, found: SourceStat) -> Removal:
    return Removal(number=1, path=str(path), size_bytes=found.size_bytes, mtime_ns=found.mtime_ns, inode=found.inode)


@pytest.mark.parametrize("bits", [0, INT_BOUND])
def test_a_source_goes_if_it_is_the_file_that_was_registered(
    disk: HostDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    def stat_here(path: str) -> os.stat_result:
        """Return an inode number of a file system that uses all 64 bits."""
        found = real(path)
        times = {"st_mtime_ns": found.st_mtime_ns}
        return os.stat_result((found.st_mode, found.st_ino + bits, *found[2:10]), times)

    real = os.lstat
    source = tmp_path / "source"
    source.write_bytes(b"x")
    registered = stat_of(source)
    source.with_suffix(".new").write_bytes(b"y")
    monkeypatch.setattr(os, "lstat", stat_here)
    assert "it changed" in disk.remove_source(removal(source, stat_of(source.with_suffix(".new"))))
    assert source.exists()
    assert disk.remove_source(removal(source, registered)) == ""
    monkeypatch.undo()
    assert not source.exists()
    assert disk.remove_source(removal(source, registered)) == ""


def test_a_disk_with_a_place_for_a_process_has_no_obstacle(disk: HostDisk) -> None:
    assert disk.blocked_reason() is None


@posix
def test_a_folder_that_is_gone_or_may_not_be_written_is_an_obstacle_with_its_path(
    disk: HostDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "host" / "work"
    shutil.rmtree(work)
    found = disk.blocked_reason()
    assert found is not None
    assert found.code == "disk_closed"
    assert str(work) in found.text


@posix
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_was_removed_is_made_anew(disk: HostDisk, tmp_path: Path, name: str) -> None:
    shutil.rmtree(tmp_path / "host" / name)
    found = disk.blocked_reason()
    assert found is not None
    assert found.text == f"{tmp_path / 'host' / name} does not exist"
    disk.scratch_ids()
    assert name in disk.make_folders()
    assert disk.blocked_reason() is None
    assert disk.make_folders() == ()


@posix
@pytest.mark.parametrize("name", FOLDERS)
def test_what_lies_in_the_place_of_a_folder_is_left_and_told(disk: HostDisk, tmp_path: Path, name: str) -> None:
    shutil.rmtree(tmp_path / "host" / name)
    (tmp_path / "host" / name).write_text("somebody's")
    assert disk.make_folders() == ()
    found = disk.blocked_reason()
    assert found is not None
    assert (found.code, found.text) == ("disk_closed", f"{tmp_path / 'host' / name} is not a folder")


@posix
def test_what_else_a_process_needs_is_an_obstacle(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    lacking = HostDisk(
        tmp_path / "host", lambda act: act(), logger_to(print), lambda: "the program is gone"
    ).blocked_reason()
    assert lacking is not None
    assert (lacking.code, lacking.text) == ("disk_closed", "the program is gone")


def test_what_cannot_be_put_out_of_the_way_is_not_taken_for_gone(disk: HostDisk, tmp_path: Path) -> None:
    scratch = Path(disk.prepare("job-1", fresh=True))
    (scratch / "old").touch()
    (tmp_path / "host" / "work" / ".trash").rmdir()
    with pytest.raises(FileNotFoundError):
        disk.prepare("job-1", fresh=True)
    disk.make_folders()
    assert list(Path(disk.prepare("job-1", fresh=True)).iterdir()) == []
    disk.discard("job-2")

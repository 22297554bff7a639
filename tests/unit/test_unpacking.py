"""The copy that an archive is unpacked to: whole, private, locked, and removed when nobody uses it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from paglets.core.unpacked import ARCHIVE_NAME, MANIFEST, bytecode_of, copies_folder, find, is_compiled, lock
from paglets.core.unpacking import GOING, GRACE_SECONDS, content_of, remove_unused, unpack, unpack_bytes
from paglets.program import Program, program_at
from paglets.program_copy import KeptCopy

FILES = {"paglets/__init__.py": b"", "paglets/core/late.py": b"answer = 42\n", MANIFEST: b"{}\n"}
CONTENT = content_of(FILES)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"src/{name}", data)
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pyz"
    path.write_bytes(archive_of(FILES))
    return path


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache" / "app"


def make_old(folder: Path) -> None:
    long_ago = folder.stat().st_mtime - 2 * GRACE_SECONDS
    os.utime(folder, (long_ago, long_ago))


def test_a_copy_has_all_files_their_bytecode_and_the_archive_for_this_user_only(archive: Path, copies: Path) -> None:
    before = os.umask(0)
    try:
        copy = Path(unpack(str(archive), CONTENT, str(copies)))
    finally:
        os.umask(before)
    assert copy == copies / CONTENT
    assert {name: (copy / name).read_bytes() for name in FILES} == FILES
    assert (copy / ARCHIVE_NAME).read_bytes() == archive.read_bytes()
    assert is_compiled(str(copy))
    bytecode = [Path(bytecode_of(str(copy / name))) for name in FILES if name.endswith(".py")]
    assert {path.read_bytes()[4:8] for path in bytecode} == {b"\x01\0\0\0"}  # never compared with the source
    assert {path.stat().st_mode & 0o077 for path in (copy, copies, copies.parent, copies.parent.parent)} == {0}
    assert [path.name for path in copies.iterdir()] == [CONTENT]


def test_a_copy_that_is_there_is_found_and_one_for_another_python_is_seen(archive: Path, copies: Path) -> None:
    assert find(CONTENT, str(copies)) == ""
    copy = unpack(str(archive), CONTENT, str(copies))
    assert find(CONTENT, str(copies)) == copy
    Path(bytecode_of(os.path.join(copy, "paglets", "__init__.py"))).unlink()
    assert not is_compiled(copy)
    assert unpack(str(archive), CONTENT, str(copies)) == copy
    assert is_compiled(copy)


@pytest.mark.parametrize("harm", ["cut", "another content"])
def test_a_damaged_archive_is_never_unpacked(archive: Path, copies: Path, harm: str) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-20] if harm == "cut" else archive_of(FILES | {"paglets/more.py": b""}))
    with pytest.raises(zipfile.BadZipFile):
        unpack(str(archive), CONTENT, str(copies))
    assert not copies.exists()


@pytest.mark.parametrize("harm", ["a file is missing", "a file is cut"])
def test_a_copy_that_was_harmed_is_replaced_and_a_whole_one_is_left(archive: Path, copies: Path, harm: str) -> None:
    data = archive.read_bytes()
    copy = unpack_bytes(data, CONTENT, copies)
    first = copy.stat().st_ino
    assert unpack_bytes(data, CONTENT, copies).stat().st_ino == first
    file = copy / "paglets" / "core" / "late.py"
    file.unlink() if harm == "a file is missing" else file.write_bytes(b"")
    unpack_bytes(data, CONTENT, copies)
    assert file.read_bytes() == FILES["paglets/core/late.py"]
    assert [path.name for path in copies.iterdir()] == [CONTENT]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("place", ["home", "home/cache", "home/cache/app", "the copy"])
def test_a_copy_that_others_could_change_is_refused(archive: Path, copies: Path, tmp_path: Path, place: str) -> None:
    copy = unpack(str(archive), CONTENT, str(copies))
    folder = Path(copy) if place == "the copy" else tmp_path / place
    folder.chmod(0o720)
    with pytest.raises(PermissionError, match="can be written by others"):
        find(CONTENT, str(copies))


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_nothing_is_made_in_a_folder_that_others_can_write_to(archive: Path, copies: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        unpack(str(archive), CONTENT, str(copies))
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_home_that_is_not_there_yet_is_made_in_a_folder_such_as_tmp(archive: Path, copies: Path) -> None:
    parent = copies.parents[2]
    parent.chmod(0o1777)
    assert not (parent / "home").exists()
    assert unpack(str(archive), CONTENT, str(copies)) == str(copies / CONTENT)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_nothing_is_made_below_a_folder_writable_by_others_and_not_sticky(archive: Path, copies: Path) -> None:
    copies.parents[2].chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        unpack(str(archive), CONTENT, str(copies))
    assert not copies.parents[1].exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give folders away")
def test_root_imports_nothing_from_the_home_of_another_user(archive: Path, copies: Path, tmp_path: Path) -> None:
    unpack(str(archive), CONTENT, str(copies))
    os.chown(tmp_path / "home", 12345, -1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        find(CONTENT, str(copies))


def test_the_folder_of_copies_follows_the_home(tmp_path: Path) -> None:
    assert copies_folder({"PAGLETS_HOME": str(tmp_path)}) == str(tmp_path / "cache" / "app")
    assert copies_folder({}) == str(Path.home() / ".paglets" / "cache" / "app")
    with pytest.raises(FileNotFoundError, match="set PAGLETS_HOME"):
        copies_folder({"PAGLETS_HOME": "~no-such-user/x"})


def test_only_old_copies_without_a_lock_are_removed(archive: Path, copies: Path) -> None:
    unpack(str(archive), CONTENT, str(copies))
    for name in ("used", "unused", "fresh", f"cut{GOING}"):
        (copies / name).mkdir()
    (copies / "notes").touch()
    code = "import sys; from paglets.core.unpacked import lock; print(lock(sys.argv[1]), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(copies / "used")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "True\n"
        for name in ("used", "unused", f"cut{GOING}", "notes"):
            make_old(copies / name)
        assert remove_unused(copies, CONTENT) == [f"cut{GOING}", "unused"]
        assert user.stdin is not None
        user.stdin.close()
    make_old(copies / "used")
    assert remove_unused(copies, CONTENT) == ["used"]
    assert {path.name for path in copies.iterdir()} == {CONTENT, "fresh", "notes"}


def test_a_copy_that_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    assert not lock(str(tmp_path / "gone"))


def test_a_host_makes_its_copy_again_with_the_same_bytes(archive: Path, copies: Path) -> None:
    program = program_at(Path(unpack(str(archive), CONTENT, str(copies))))
    kept = KeptCopy(program)
    assert (kept.lacks(), kept.restore()) == ("", "")
    for harmed in (copies.parent, program.path / "paglets" / "core"):
        shutil.rmtree(harmed)
        assert "has been recreated" in kept.restore()
        assert (kept.lacks(), kept.restore()) == ("", "")
        assert (program.path / "paglets" / "core" / "late.py").read_bytes() == FILES["paglets/core/late.py"]


def test_a_removed_copy_is_told_until_it_is_made_again(archive: Path, copies: Path) -> None:
    kept = KeptCopy(program_at(Path(unpack(str(archive), CONTENT, str(copies)))))
    shutil.rmtree(copies)
    assert "restart it with its paglets.pyz" in kept.lacks()
    copies.write_bytes(b"")
    with pytest.raises(OSError, match=str(copies)):
        kept.restore()


def test_a_copy_whose_archive_was_written_to_is_told_and_left(archive: Path, copies: Path) -> None:
    program = program_at(Path(unpack(str(archive), CONTENT, str(copies))))
    kept = KeptCopy(program)
    (program.path / ARCHIVE_NAME).write_bytes(b"")
    assert (kept.restore(), (program.path / ARCHIVE_NAME).read_bytes()) == ("", b"")
    assert str(program.path) in kept.lacks()


def test_a_program_that_is_no_copy_is_left_alone(archive: Path, tmp_path: Path) -> None:
    for program in (program_at(archive), Program(path=tmp_path, archive=None)):
        kept = KeptCopy(program)
        assert (kept.lacks(), kept.restore()) == ("", "")

"""How another process with the same program is started."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from paglets.core.command import interpreter_flags
from paglets.core.errors import StartFailed
from paglets.program import (
    COPY_GRACE_SECONDS,
    GOING,
    KeptCopy,
    Program,
    become,
    child_command,
    child_environment,
    collect_copies,
    keep_copy,
    this_program,
)

ARCHIVE = Program(path=Path("/opt/paglets.pyz"), is_archive=True)
FOLDER = Program(path=Path("/opt/checkout"), is_archive=False)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("python paglets.pyz host -v", ""),
        ("python -I -X utf8 paglets.pyz host", "-I -X utf8"),
        ("python -Xutf8 -W error -B -m paglets host -q", "-Xutf8 -W error -B"),
        ("python -Im paglets host", "-I"),
        ("python -u -c code -x", "-u"),
        ("python --check-hash-based-pycs never x.pyz", "--check-hash-based-pycs never"),
        ("python - x", ""),
        ("python", ""),
    ],
)
def test_a_child_gets_the_options_of_this_interpreter(words, flags):
    assert interpreter_flags(words.split()) == flags.split()


def test_a_child_of_an_archive_runs_that_archive():
    assert child_command(ARCHIVE, "_worker", "3", python="/venv/bin/python") == [
        "/venv/bin/python",
        str(ARCHIVE.path),
        "_worker",
        "3",
    ]


def test_a_child_of_a_checkout_does_not_import_from_its_working_folder():
    assert child_command(FOLDER, "_zygote")[-4:] == ["-P", "-m", "paglets", "_zygote"]


def test_the_program_comes_first_and_once_on_the_path_of_a_child():
    given = {"A": "1", "PYTHONPATH": os.pathsep.join(["/mine", str(FOLDER.path)])}
    seen = child_environment(FOLDER, given)
    assert seen == {"A": "1", "PYTHONPATH": os.pathsep.join([str(FOLDER.path), "/mine"])}


def test_an_installed_program_is_found_as_it_is():
    import sysconfig

    installed = Program(path=Path(sysconfig.get_path("purelib")), is_archive=False)
    assert child_environment(installed, {"A": "1"}) == {"A": "1"}
    assert "PYTHONPATH" in child_environment(installed, {}, python="/other/python")


def test_this_program_is_the_folder_that_the_package_was_imported_from():
    program = this_program()
    assert program.read("paglets/program.py") == Path(sys.modules["paglets.program"].__file__ or "").read_bytes()
    assert program.sha256() == this_program().sha256()
    with pytest.raises(OSError, match="nothing"):
        program.read("paglets/nothing")


def test_a_copy_that_was_removed_is_made_anew_with_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "mine.pyz").write_bytes(b"the program" * 1000)
    copy = keep_copy(Program(path=tmp_path / "mine.pyz", is_archive=True), tmp_path / "home")
    kept = KeptCopy(copy)
    assert (kept.lacks(), kept.restore()) == ("", "")
    for _ in range(2):
        shutil.rmtree(tmp_path / "home" / "cache")
        assert "restart it with its paglets.pyz" in kept.lacks()
        assert "made anew" in kept.restore()
        assert kept.lacks() == ""
        assert copy.path.read_bytes() == b"the program" * 1000


def test_a_removal_of_a_copy_that_was_cut_off_is_finished_and_what_is_no_copy_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.pyz").write_bytes(b"the program")
    own = keep_copy(Program(path=tmp_path / "mine.pyz", is_archive=True), tmp_path / "home")
    copies = own.path.parent.parent
    for folder in (copies / "old", copies / f"old{GOING}"):
        folder.mkdir()
        (folder / "origins").touch()
    (copies / "old" / "paglets.pyz").touch()
    (copies / "notes").touch()
    for each in copies.iterdir():
        os.utime(each, (0, COPY_GRACE_SECONDS))
    found = [*collect_copies(tmp_path / "home", own), *collect_copies(tmp_path / "home", own)]
    assert sorted(found) == ["old", f"old{GOING}"]
    assert {each.name for each in copies.iterdir()} == {own.path.parent.name, "notes"}


def test_a_copy_that_was_written_to_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "mine.pyz").write_bytes(b"the program")
    copy = keep_copy(Program(path=tmp_path / "mine.pyz", is_archive=True), tmp_path / "home")
    kept = KeptCopy(copy)
    copy.path.write_bytes(b"")
    assert (kept.restore(), copy.path.read_bytes()) == ("", b"")
    assert str(copy.path) in kept.lacks()


def test_a_try_to_make_it_anew_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    # It is tried each second: on a full disk each try left a file.
    (tmp_path / "mine.pyz").write_bytes(b"the program")
    copy = keep_copy(Program(path=tmp_path / "mine.pyz", is_archive=True), tmp_path / "home")
    kept = KeptCopy(copy)
    copy.path.unlink()
    copy.path.mkdir()
    with pytest.raises(OSError, match=str(copy.path.parent)):
        kept.restore()
    assert list(copy.path.parent.iterdir()) == [copy.path]


def test_what_the_user_started_himself_is_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.pyz").write_bytes(b"the program")
    kept = KeptCopy(Program(path=tmp_path / "mine.pyz", is_archive=True))
    (tmp_path / "mine.pyz").unlink()
    assert (kept.lacks(), kept.restore()) == ("", "")


def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=f"{tmp_path / 'python'} cannot be started: No such file"):
        become([str(tmp_path / "python")])

"""How another process with the same program is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from paglets.core.command import interpreter_flags
from paglets.core.errors import StartFailed
from paglets.program import Program, become, child_command, child_environment, this_program

ARCHIVE = Program(path=Path("/opt/paglets.pyz"), archive=Path("/opt/paglets.pyz"))
COPY = Program(path=Path("/home/cache/copy"), archive=Path("/home/cache/copy/paglets.pyz"))
FOLDER = Program(path=Path("/opt/checkout"), archive=None)


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


@pytest.mark.parametrize("program", [ARCHIVE, COPY])
def test_a_child_of_an_archive_runs_that_archive_or_its_copy(program):
    assert child_command(program, "_worker", "3", python="/venv/bin/python") == [
        "/venv/bin/python",
        str(program.path),
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

    installed = Program(path=Path(sysconfig.get_path("purelib")), archive=None)
    assert child_environment(installed, {"A": "1"}) == {"A": "1"}
    assert "PYTHONPATH" in child_environment(installed, {}, python="/other/python")


def test_this_program_is_the_folder_that_the_package_was_imported_from():
    program = this_program()
    assert program.read("paglets/program.py") == Path(sys.modules["paglets.program"].__file__ or "").read_bytes()
    assert program.sha256() == this_program().sha256()
    with pytest.raises(OSError, match="nothing"):
        program.read("paglets/nothing")


def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=f"{tmp_path / 'python'} cannot be started: No such file"):
        become([str(tmp_path / "python")])

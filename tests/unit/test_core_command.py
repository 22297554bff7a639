"""The commands in messages work in the folder of the user."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.core.command import carried_command, command_for, on_path, python_path, quoted

PYTHON_NAME = f"python3.{sys.version_info.minor}"
KEPT = "a" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an archive, a `bin` with an interpreter, and a virtual environment of that interpreter."""
    for name in ("bin", "tools", "venv/bin", f"home/{KEPT}"):
        (tmp_path / name).mkdir(parents=True)
    program(tmp_path / "bin" / PYTHON_NAME)
    (tmp_path / "bin" / "python3").symlink_to(PYTHON_NAME)
    (tmp_path / "venv" / "bin" / "python3").symlink_to(tmp_path / "bin" / "python3")
    archive(tmp_path / "tools" / "paglets.pyz")
    return tmp_path


def program(path: Path, content: bytes = b"") -> None:
    path.write_bytes(content)
    path.chmod(0o755)


def archive(path: Path, end: bytes = b"table of contents") -> None:
    program(path, b"#!/usr/bin/env python3\n" + bytes(1 << 19) + end)


@pytest.fixture
def command(place: Path) -> Callable[..., str]:
    def command(file: str, **changed: object) -> str:
        given = {
            "is_archive": True,
            "typed": str(place / "bin" / "python3"),
            "called": "x.py",
            "executable": str(place / "bin" / "python3"),
            "in_venv": False,
            "folder": str(place / "tools"),
            "path": str(place / "bin"),
        }
        return command_for(str(place / file), **given | changed)  # type: ignore[arg-type]

    return command


def test_an_archive_that_is_not_on_path_is_named_with_the_interpreter(command, place):
    assert command("tools/paglets.pyz") == "python3 paglets.pyz"
    assert command("tools/paglets.pyz", folder=str(place)) == "python3 tools/paglets.pyz"
    assert command("tools/paglets.pyz", folder=str(place / "venv")) == f"python3 {place}/tools/paglets.pyz"
    assert command("tools/paglets.pyz", folder="") == f"python3 {place}/tools/paglets.pyz"


@pytest.mark.parametrize("way", ["moved", "linked", "copied"])
def test_an_archive_that_path_finds_as_paglets_is_that(command, place, way):
    if way == "linked":
        (place / "bin" / "paglets").symlink_to(place / "tools" / "paglets.pyz")
    else:
        archive(place / "bin" / "paglets")
    assert command("bin/paglets" if way == "moved" else "tools/paglets.pyz") == "paglets"


def test_another_program_of_that_name_is_not_taken_for_this_one(command, place):
    archive(place / "bin" / "paglets", end=b"another table of co")
    assert command("tools/paglets.pyz") == "python3 paglets.pyz"
    program(place / "bin" / "paglets", b"#!/bin/sh\n")
    assert command("tools/paglets.pyz", typed="") == "python3 paglets.pyz"


def test_a_file_on_path_by_another_name_is_called_by_that(command, place):
    archive(place / "bin" / "paglets-2.pyz")
    assert command("bin/paglets-2.pyz") == "paglets-2.pyz"


@pytest.mark.parametrize(("version", "text"), [("python3.8", "python3.8 {work}/paglets.pyz"), ("python", "paglets")])
def test_the_first_line_of_the_archive_must_find_an_interpreter_that_is_new_enough(command, place, version, text):
    old = place / "old"
    old.mkdir()
    program(old / version)
    (old / "python3").symlink_to(version)
    archive(old / "paglets")
    done = command("tools/paglets.pyz", path=str(old), executable=str(old / version), folder="")
    assert done == text.format(work=place / "tools")
    assert command("tools/paglets.pyz", path=str(place / "venv"), typed="") == f"{place}/bin/python3 paglets.pyz"


def test_an_interpreter_is_named_by_its_name_only_if_path_finds_it(command, place):
    venv = str(place / "venv" / "bin" / "python3")
    both = {"executable": venv, "typed": venv, "in_venv": True}
    assert command("tools/paglets.pyz", **both) == f"{venv} paglets.pyz"
    assert command("tools/paglets.pyz", **both, folder=str(place)) == "venv/bin/python3 tools/paglets.pyz"
    assert command("tools/paglets.pyz", **both, path=str(place / "venv" / "bin")) == "python3 paglets.pyz"
    assert command("tools/paglets.pyz", executable="/usr/lib/other/python3") == "/usr/lib/other/python3 paglets.pyz"


def test_a_name_that_the_user_typed_is_kept(command, place):
    program(place / "bin" / "py")
    assert command("tools/paglets.pyz", typed="py", executable="/opt/python/bin/python3.11") == "py paglets.pyz"
    assert command("tools/paglets.pyz", typed="gone") == "python3 paglets.pyz"


def test_a_path_with_spaces_and_quotes_can_be_pasted(command, place):
    odd = place / "it's my tools"
    odd.mkdir()
    archive(odd / "paglets.pyz")
    text = command("it's my tools/paglets.pyz", executable=str(odd / "python3"), path="/nowhere")
    assert shlex.split(text) == [str(odd / "python3"), str(odd / "paglets.pyz")]
    assert [quoted(word) for word in ("a/b-1.py", "a b", "", "$x", "ü")] == ["a/b-1.py", "'a b'", "''", "'$x'", "'ü'"]


def test_a_kept_copy_is_called_as_the_user_did_and_never_by_its_path(command, place):
    copy = f"home/{KEPT}"
    path = str(place / copy)

    assert command(copy) == "paglets"
    for carried in (carried_command("./paglets.pyz", path), carried_command("a\x1b[31m", path), {"": f"\t{path}"}):
        (value,) = carried.values()
        assert command(copy, carried=value) == ("./paglets.pyz" if value.startswith("./") else "paglets")


def test_what_is_carried_for_another_program_is_not_taken(command):
    assert command("tools/paglets.pyz", carried="paglets\t/opt/other.pyz") == "python3 paglets.pyz"


def test_an_installed_program_is_called_by_the_script_beside_its_interpreter(command, place):
    venv = place / "venv" / "bin"
    installed = {"is_archive": False, "executable": str(venv / "python3"), "in_venv": True}
    assert command("lib", **installed) == "paglets"  # nothing better is known
    program(venv / "paglets")
    assert command("lib", **installed) == f"{venv}/paglets"
    assert command("lib", **installed, folder=str(place)) == "venv/bin/paglets"
    assert command("lib", **installed, path=str(venv)) == "paglets"
    assert command("lib", **installed, called=str(place / "venv" / "bin" / "paglets"), path=str(venv)) == "paglets"


def test_a_program_that_runs_as_a_module_is_called_so(command, place):
    called = str(place / "lib" / "paglets" / "__main__.py")
    assert command("lib", is_archive=False, called=called) == "python3 -m paglets"
    assert command("lib", is_archive=False, called="/opt/pytest/__main__.py") == "paglets"


def test_a_word_is_looked_up_as_a_shell_does(place):
    path = os.pathsep.join(["/nowhere", str(place / "bin")])
    assert on_path("python3", path) == str(place / "bin" / "python3")
    (place / "bin" / "data").write_bytes(b"")
    assert (on_path("data", path), on_path("bin", str(place)), on_path("python3", "")) == ("", "", "")


def test_the_program_comes_first_and_once_on_pythonpath():
    given = os.pathsep.join(["/a", "", "/p.pyz"])
    assert python_path("/p.pyz", given) == os.pathsep.join(["/p.pyz", "/a"])
    assert python_path("/p.pyz", "") == "/p.pyz"


def test_the_module_that_each_script_loads_first_loads_little():
    code = "import sys; before = set(sys.modules); import paglets.cli.script; print(*(set(sys.modules) - before))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    heavy = {
        "re",
        "typing",
        "dataclasses",
        "pathlib",
        "argparse",
        "subprocess",
        "hashlib",
        "json",
        "paglets.core.errors",
    }
    assert heavy & set(done.stdout.split()) == set()

"""Processes of the archive run from its unpacked copy, and go on if the file changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from paglets.core.unpacked import MANIFEST

LATE = """\
import sys, paglets
print("ready", flush=True)
sys.stdin.readline()
import pkgutil, paglets.core.record, paglets.store.db
print(paglets.core.record.__file__, bool(pkgutil.get_data("paglets.store", "migrations/0001_first.sql")))
"""
FILE = "import paglets.core.errors as e; print(e.__file__, e.__spec__.cached)"
PROBLEM = "import os; from paglets.program_copy import unpack_problem; print(unpack_problem(os.environ))"


def copies(home: Path) -> list[Path]:
    return [path.parent for path in (home / "cache" / "app").glob(f"*/{MANIFEST}")]


@pytest.fixture
def mine(pyz: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pyz, tmp_path / "paglets.pyz"))


@pytest.mark.parametrize("way", ["replaced", "overwritten", "deleted"])
def test_a_process_does_not_mind_what_becomes_of_the_file(mine: Path, tmp_path: Path, way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LATE],
        env=os.environ | {"PYTHONPATH": str(mine), "PAGLETS_HOME": str(tmp_path / "home")},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (copy,) = copies(tmp_path / "home")
        if way == "replaced":
            (tmp_path / "new").write_bytes(b"another file")
            os.replace(tmp_path / "new", mine)
        elif way == "overwritten":
            mine.write_bytes(b"another file")
        else:
            mine.unlink()
        output, _ = process.communicate("\n", timeout=60)
    assert output.split() == [str(copy / "paglets" / "core" / "record.py"), "True"]


def test_many_first_starts_at_once_make_one_whole_copy(mine: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = kept | {"PYTHONPATH": str(mine), "PAGLETS_HOME": str(tmp_path / "home")}
    processes = [
        subprocess.Popen([sys.executable, "-c", FILE], env=environment, stdout=subprocess.PIPE, text=True, cwd="/")
        for _ in range(12)
    ]
    outputs = {process.communicate(timeout=300)[0].split()[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    (copy,) = copies(tmp_path / "home")
    assert outputs == {str(copy / "paglets" / "core" / "errors.py")}
    assert list((tmp_path / "home" / "cache" / "app").iterdir()) == [copy]
    with zipfile.ZipFile(mine) as archive:
        source = {name.removeprefix("src/"): archive.read(name) for name in archive.namelist() if name[:4] == "src/"}
    made = {path.relative_to(copy).as_posix(): path for path in copy.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in made.items() if path.suffix != ".pyc"} == source | {
        "paglets.pyz": mine.read_bytes()
    }
    assert sum(name.endswith(".py") for name in source) == sum(path.suffix == ".pyc" for path in made.values())


@pytest.mark.parametrize("home", ["unwritable", "writable for others"])
def test_without_a_copy_it_runs_from_the_file_and_says_why(run, mine: Path, tmp_path: Path, home: str) -> None:
    folder = Path("/dev/null/home")
    if home == "writable for others":
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o777)
    done = run(sys.executable, "-c", f"{FILE}\n{PROBLEM}", PYTHONPATH=mine, PAGLETS_HOME=folder)
    file, problem = done.stdout.splitlines()
    assert file.startswith(str(mine / "src" / "paglets" / "core" / "errors.py")), done.stderr
    assert str(folder) in problem or "/dev/null" in problem
    doctor = run(sys.executable, mine, "doctor", PAGLETS_HOME=folder)
    assert "not unpacked: " in doctor.stdout, doctor.stderr


def test_it_says_why_a_whole_copy_has_no_bytecode(run, mine: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    run(sys.executable, "-c", FILE, PYTHONPATH=mine, PAGLETS_HOME=home)
    (copy,) = copies(home)
    shutil.rmtree(copy / "paglets" / "__pycache__")
    (copy / "paglets" / "__pycache__").touch()  # no bytecode can be written, as on a full disk
    done = run(sys.executable, "-c", f"{FILE}\n{PROBLEM}", PYTHONPATH=mine, PAGLETS_HOME=home)
    file, problem = done.stdout.splitlines()
    assert file.startswith(str(mine / "src")), done.stderr
    assert "__pycache__" in problem


def test_a_command_whose_copy_lacks_files_says_what_to_remove(run, mine: Path, tmp_path: Path) -> None:
    assert run(sys.executable, mine, "version").returncode == 0
    (copy,) = copies(tmp_path / "home")
    shutil.rmtree(copy / "paglets" / "cli")
    done = run(sys.executable, mine, "version")
    assert done.returncode == 2
    assert done.stderr == f"paglets: the unpacked program in {copy} lacks files\nhint: remove that folder\n"
    shutil.rmtree(copy)
    assert run(sys.executable, mine, "version").returncode == 0

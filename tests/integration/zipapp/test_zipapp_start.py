"""The archive starts: everywhere, under every Python, from every place, and fast."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from build_zipapp import ROOT, find_interpreters

INTERPRETERS = {tree: python for tree, (python, _) in find_interpreters([]).items()}
OLD_PYTHONS = sorted(
    python
    for version in ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10")
    for python in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
)
SLOWEST_START_SECONDS = 0.15
SLOWEST_START_SHARE = 4.0
"""The same on a slow machine: so many times what Python needs there to load a few modules of its own."""
EVERY_TREE = pytest.mark.parametrize(("tree", "python"), INTERPRETERS.items(), ids=INTERPRETERS)


@EVERY_TREE
def test_version_runs_under_each_interpreter(run, pyz, tree, python):
    done = run(python, pyz, "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert hashlib.sha256(pyz.read_bytes()).hexdigest() in done.stdout


@EVERY_TREE
def test_a_script_imports_the_modules_compiled_for_its_interpreter_under_one_name(run, pyz, tree, python):
    code = (
        "import sys; before = set(sys.modules)\n"
        "import paglets; new = set(sys.modules) - before\n"
        "assert {name for name in new if 'paglets' in name} == {'paglets'} and len(new) < 30, new\n"
        "from paglets import *; assert set(paglets.__all__) <= set(globals())\n"
        "import pkgutil, paglets.core.errors, tomli_w\n"
        "print(paglets.core.errors.__spec__.origin, tomli_w.__spec__.origin, sep='\\n')\n"
        "assert pkgutil.get_data('paglets.store', 'schema.sql')\n"
        "assert sys.modules['paglets.core'].errors is paglets.core.errors\n"
        "assert PagletsError is paglets.core.errors.PagletsError\n"
        "assert paglets.__spec__.name == 'paglets'\n"
        "files = {name: str(getattr(module, '__file__', '')) for name, module in sys.modules.items()}\n"
        "names = [name for name, file in files.items() if 'core/errors' in file]\n"
        "assert names == ['paglets.core.errors'], names\n"
    )
    done = run(python, "-S", "-c", code, PYTHONPATH=pyz)
    assert done.stderr == ""
    errors, tomli_w = done.stdout.splitlines()
    assert errors == str(pyz / tree / "paglets" / "core" / "errors.pyc")
    assert tomli_w == str(pyz / tree / "tomli_w" / "__init__.pyc")


@pytest.mark.parametrize("python", OLD_PYTHONS, ids=lambda path: path.parents[1].name)
@pytest.mark.parametrize("way", ["archive", "checkout", "import"])
def test_an_old_python_is_told_in_one_line_that_a_newer_one_is_needed(run, pyz, python, way):
    if way == "archive":
        done = run(python, pyz, "version")
    elif way == "checkout":
        done = run(python, "-m", "paglets", "version", PYTHONPATH=ROOT, PYTHONDONTWRITEBYTECODE=1)
    else:
        done = run(python, "-c", "import paglets", PYTHONPATH=pyz)
    assert done.returncode == (1 if way == "import" else 2)
    assert done.stderr.splitlines()[-1].startswith(
        ("paglets needs Python 3.11 or newer; this is", "ImportError: paglets")
    )
    if way != "import":
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("way", ["relative", "symlink", "shebang", "read-only", "module", "isolated"])
def test_it_starts_from_every_place(run, pyz, tmp_path, way):
    place = tmp_path / "read only"
    place.mkdir()
    copy = Path(shutil.copy(pyz, place))
    link = tmp_path / "paglets"
    link.symlink_to(copy)
    copy.chmod(0o555)
    place.chmod(0o555)
    done = {
        "relative": lambda: run(sys.executable, Path("..", "read only", "paglets.pyz"), "version"),
        "symlink": lambda: run(sys.executable, link, "version"),
        "shebang": lambda: run(link, "version", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        "read-only": lambda: run(sys.executable, copy, "version"),
        "module": lambda: run(sys.executable, "-m", "paglets", "version", PYTHONPATH=copy),
        "isolated": lambda: run(sys.executable, "-I", "-S", copy, "version"),
    }[way]()
    assert (done.returncode, done.stderr) == (0, "")
    assert hashlib.sha256(pyz.read_bytes()).hexdigest() in done.stdout


def test_a_checkout_gives_the_same_program(run):
    done = run(sys.executable, "-m", "paglets", "version", PYTHONPATH=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(ROOT) in done.stdout


def test_a_home_that_cannot_be_written_does_not_matter_for_a_short_command(run, pyz):
    done = run(sys.executable, pyz, "version", HOME="/dev/null/home", PAGLETS_HOME="/dev/null/paglets")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("harm", ["no tree", "bytecode of another build"])
def test_the_source_is_taken_where_there_is_no_fitting_bytecode(run, pyz, tmp_path, harm):
    whole = zipfile.ZipFile(pyz)
    with zipfile.ZipFile(tmp_path / "paglets.pyz", "w") as archive:
        for name in whole.namelist():
            data = whole.read(name)
            if name.endswith(".pyc") and harm == "no tree":
                continue
            archive.writestr(name, b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data)
    code = "import paglets.core.errors as e; print(e.__file__)"
    done = run(sys.executable, "-c", code, PYTHONPATH=tmp_path / "paglets.pyz")
    assert done.stdout.strip() == str(tmp_path / "paglets.pyz" / "src" / "paglets" / "core" / "errors.py"), done.stderr


@EVERY_TREE
def test_a_command_starts_in_less_than_150_ms(pyz, tree, python):
    def seconds(*words: object) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, of which a start is made, and the least of several: other programs of the machine only ever add.
    pairs = [(seconds(pyz, "version"), seconds("-c", "import argparse, dataclasses, hashlib, json")) for _ in range(8)]
    ours, pythons = map(min, zip(*pairs, strict=True))
    assert ours < max(SLOWEST_START_SECONDS, SLOWEST_START_SHARE * pythons)

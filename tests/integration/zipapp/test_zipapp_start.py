"""The archive starts fast from every place under every Python."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from build_zipapp import ROOT
from paglets.core.unpacked import MANIFEST
from tests.integration.zipapp.interpreters import INTERPRETERS

OLD_PYTHONS = sorted(
    python
    for version in ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10")
    for python in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
)
SLOWEST_START_SECONDS = 0.15
SLOWEST_START_SHARE = 4.0
"""The same limit on a slow machine, as a multiple of the time that Python needs there to load a few modules."""
EVERY_PYTHON = pytest.mark.parametrize("python", INTERPRETERS.values(), ids=map(str, INTERPRETERS))


@EVERY_PYTHON
def test_version_runs_under_each_interpreter(run, pyz, python):
    done = run(python, pyz, "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert hashlib.sha256(pyz.read_bytes()).hexdigest() in done.stdout


@EVERY_PYTHON
def test_a_script_imports_compiled_modules_under_one_name(run, pyz, tmp_path, python):
    code = (
        "import sys; before = set(sys.modules)\n"
        "import paglets; new = set(sys.modules) - before\n"
        "assert {name for name in new if 'paglets' in name} == {'paglets'} and len(new) < 30, new\n"
        "from paglets import *; assert set(paglets.__all__) <= set(globals())\n"
        "import os, pkgutil, paglets.core.errors\n"
        "from paglets.native import load_tomli_w\n"
        "print(paglets.core.errors.__spec__.origin, load_tomli_w().__spec__.origin, sep='\\n')\n"
        "assert os.path.isfile(paglets.core.errors.__spec__.cached)\n"
        "assert pkgutil.get_data('paglets.store', 'migrations/0001_first.sql')\n"
        "assert sys.modules['paglets.core'].errors is paglets.core.errors\n"
        "assert PagletsError is paglets.core.errors.PagletsError\n"
        "assert paglets.__spec__.name == 'paglets'\n"
        "files = {name: str(getattr(module, '__file__', '')) for name, module in sys.modules.items()}\n"
        "names = [name for name, file in files.items() if 'core/errors' in file]\n"
        "assert names == ['paglets.core.errors'], names\n"
    )
    assert (
        run(python, "-S", pyz, "version").returncode == 0
    )  # the first start imports the modules that unpack and compile
    done = run(python, "-S", "-c", code, PYTHONPATH=pyz)
    assert done.stderr == ""
    errors, tomli_w = done.stdout.splitlines()
    (manifest,) = (tmp_path / "home" / "cache" / "app").glob(f"*/{MANIFEST}")
    assert errors == str(manifest.parent / "paglets" / "core" / "errors.py")
    assert tomli_w == str(manifest.parent / "vendor" / "tomli_w" / "__init__.py")


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


@EVERY_PYTHON
def test_a_command_starts_in_less_than_150_ms(pyz, tmp_path, python):
    environment = os.environ | {"PAGLETS_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}

    def seconds(*words: object) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds(pyz, "version")  # the first start unpacks and compiles
    # Measure processor time and take the minimum, because other programs can only add to it.
    pairs = [(seconds(pyz, "version"), seconds("-c", "import argparse, dataclasses, hashlib, json")) for _ in range(8)]
    ours, pythons = map(min, zip(*pairs, strict=True))
    assert ours < max(SLOWEST_START_SECONDS, SLOWEST_START_SHARE * pythons)

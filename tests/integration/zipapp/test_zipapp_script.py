"""`paglets SCRIPT.py` runs `python SCRIPT.py` with this program to import."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from build_zipapp import ROOT
from paglets.core.unpacked import MANIFEST
from paglets.core.unpacking import GRACE_SECONDS, remove_unused
from tests.fakes.waiting import wait_until

ABOUT_ITSELF = """\
import sys
print(sys.argv, __name__, __file__, sys.path[0], sys.stdin.read(), sys.flags, sys.executable, sys.prefix)
print(*sys.modules[__name__].__dict__, sep="\\n")
sys.exit(int(sys.argv[1])) if sys.argv[1].isdigit() else print(1 / 0)
"""

WHERE = "import paglets.core.text as text; print(text.__file__, text.command_name(), sep='\\n')\n"

LATE = """\
import os, sys
print(os.getpid(), flush=True)
sys.stdin.readline()
import paglets.core.record, paglets.store.migrations.steps
print(paglets.core.record.__file__, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the user's folder in which commands run."""
    folder = tmp_path / "my work"
    folder.mkdir()
    return folder


@pytest.fixture
def mine(pyz: Path, work: Path) -> Path:
    """Return the user's own archive in that folder."""
    return Path(shutil.copy(pyz, work / "paglets.pyz"))


def in_home(tmp_path: Path) -> Path:
    """Return the one unpacked copy."""
    (manifest,) = (tmp_path / "home" / "cache" / "app").glob(f"*/{MANIFEST}")
    return manifest.parent


@pytest.mark.parametrize("words", [["3", "--json", "--help"], ["", "*", "-m"]])
def test_a_script_sees_what_it_sees_without_paglets(run, mine, work, words):
    (work / "about.py").write_text(ABOUT_ITSELF)
    plain = run(sys.executable, "-X", "dev", "about.py", *words, cwd=work)
    done = run(sys.executable, "-X", "dev", "paglets.pyz", "about.py", *words, cwd=work)
    assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.returncode == (3 if "3" in words else 1)


def test_the_file_on_path_runs_scripts_and_names_itself(run, pyz, tmp_path, work):
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy(pyz, folder / "paglets")
    (folder / "python3").symlink_to(sys.executable)
    (work / "where.py").write_text(WHERE)
    path = f"{folder}{os.pathsep}{os.defpath}"
    for _ in range(2):  # the first start makes the copy
        done = run("paglets", "where.py", cwd=work, PATH=path)
        file, command = done.stdout.splitlines()
        assert file.startswith(str(in_home(tmp_path)))
        assert command == "paglets"
    assert "\nnext: " not in done.stderr
    done = run("paglets", "wheer.py", cwd=work, PATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "paglets: no file 'wheer.py' here: did you mean 'where.py'?\n"
    (work / "early.py").write_text(f"import sys; sys.path[:0] = [{str(pyz)!r}]\n{WHERE}")
    done = run(sys.executable, "early.py", cwd=work, PATH=path)
    assert done.stdout.splitlines()[1] == "paglets"  # an equal file, whatever its path


def test_a_script_has_the_packages_of_the_virtual_environment_that_runs_it(run, mine, work):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / ".venv"], check=True, timeout=120)
    python = Path(".venv", "bin", "python")
    (packages,) = (work / ".venv").glob("lib/*/site-packages")
    (packages / "numbers_of_mine.py").write_text("import sys; one = sys.prefix")
    (work / "fit.py").write_text(f"import numbers_of_mine; print(numbers_of_mine.one)\n{WHERE}")
    by_flag = run(sys.executable, mine, "--python", python, "--at", "box", "fit.py", cwd=work)
    by_itself = run(python, "paglets.pyz", "fit.py", cwd=work)
    outside = run(sys.executable, mine, "fit.py", cwd=work)
    assert by_flag.stdout.splitlines()[0] == by_itself.stdout.splitlines()[0] == str(work / ".venv")
    assert by_itself.stdout.splitlines()[-1] == ".venv/bin/python paglets.pyz"
    assert "No module named 'numbers_of_mine'" in outside.stderr


@pytest.mark.parametrize("way", ["replaced", "overwritten"])
def test_a_script_that_runs_for_long_does_not_mind_what_becomes_of_the_file(run, mine, work, tmp_path, way):
    (work / "late.py").write_text(LATE)
    with subprocess.Popen(
        [sys.executable, "paglets.pyz", "late.py"],
        cwd=work,
        env=os.environ | {"PAGLETS_HOME": str(tmp_path / "home")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == f"{script.pid}\n"  # no process is in between
        if way == "replaced":
            (work / "new").write_bytes(b"another file")
            os.replace(work / "new", mine)
        else:
            mine.write_bytes(b"another file")
        copy = in_home(tmp_path)
        own = copy.with_name("another")
        own.mkdir()
        long_ago = time.time() - 2 * GRACE_SECONDS
        os.utime(copy, (long_ago, long_ago))
        assert remove_unused(copy.parent, own.name) == []
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline().startswith(str(copy))
        script.send_signal(signal.SIGINT)
        assert script.wait(60) == -signal.SIGINT  # as Python exits after Ctrl-C
    os.utime(copy, (long_ago, long_ago))
    assert wait_until(lambda: remove_unused(copy.parent, own.name), what="the copy to be free")


def test_a_script_with_a_relative_home_may_go_to_another_folder(run, mine, work):
    (work / "goes.py").write_text(
        "import os, subprocess, sys; os.chdir('/')\n"
        "subprocess.run([sys.executable, '-c', 'import paglets.core.text as text; print(text.__file__)'])\n"
    )
    done = run(sys.executable, mine, "goes.py", cwd=work, PAGLETS_HOME="my-home")
    assert done.stdout.startswith(str(work / "my-home" / "cache")), done.stderr


def test_a_checkout_runs_scripts_too(run, work):
    (work / "where.py").write_text(WHERE)
    done = run(sys.executable, "-m", "paglets", "where.py", cwd=work, PYTHONPATH=ROOT)
    assert done.stdout.startswith(str(ROOT / "paglets")), done.stderr


def test_an_interpreter_that_ignores_its_environment_is_refused(run, mine, work):
    (work / "where.py").write_text(WHERE)
    done = run(sys.executable, "-I", mine, "where.py", cwd=work)
    assert (done.returncode, done.stderr) == (
        2,
        "paglets: python -I and -E hide paglets from a script: leave them out\n",
    )

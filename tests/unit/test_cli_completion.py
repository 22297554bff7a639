"""The completions that a shell gets for a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paglets.cli.commands.completion import CompletionSources, candidates
from paglets.cli.main import COMMANDS, main, parser_of

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"LC_ALL": "C"}
"""The locale of bash: for one that this machine lacks, bash prints a warning on stderr."""


NAMES = {
    "GROUP|GROUP/JOBKEY": ["words", "words/"],
    "GROUP/JOBKEY": ["words/monday", "words/tuesday"],
    "GROUP": ["words", "primes"],
    "NAME|URL": ["laptop", "linux-a"],
    "NAME": ["laptop"],
}


def offered(*words: str) -> list[str]:
    names = {kind: lambda last, found=found: found for kind, found in NAMES.items()}
    return candidates(list(words), CompletionSources(commands=COMMANDS, parser_of=parser_of, names=names))


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["jo"], ["jobs"]),
        (["jobs", "wa"], ["wait", "watch"]),
        (["jobs", "watch", ""], ["primes", "words"]),
        (["jobs", "why", "words"], ["words", "words/"]),
        (["jobs", "show", "words/m"], ["words/monday"]),
        (["jobs", "ps", "--a"], ["--all", "--at"]),
        (["jobs", "ps", "--at", "l"], ["laptop", "linux-a"]),
        (["jobs", "ps", "--all", "--at", "x"], []),
        (["stop", ""], ["laptop"]),
        (["help", "jobs", "wa"], ["wait", "watch"]),
        (["completion", "f"], ["fish"]),
        (["artifacts", "put", "so"], []),
        (["nothing", ""], []),
        (["host", "--tag", ""], []),
    ],
)
def test_a_word_is_completed_with_what_may_stand_there(words: list[str], there: list[str]) -> None:
    assert offered(*words) == there


def test_at_the_beginning_all_commands_and_scripts_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fit.py", "jobs.py", "data.csv", ".hidden.py", "more/late.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert offered("") == sorted([*COMMANDS, "fit.py", "jobs.py"])
    assert offered("--python", "/usr/bin/python3", "jo") == ["jobs", "jobs.py"]
    assert offered("--at", "linux-a", "m") == ["mesh", "more/"]
    assert offered("--at", "l") == ["laptop", "linux-a"]
    assert offered("more/") == ["more/late.py"]
    assert offered("--python", "") == offered("fit.py", "") == []  # a shell completes files itself


def test_without_a_host_nothing_is_offered_and_nothing_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path))
    assert main(["_complete", "jobs", "watch", ""]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_with_the_lines_that_are_printed(tmp_path: Path) -> None:
    program = f'paglets() {{ {sys.executable} -m paglets "$@"; }}\n'
    script = program + 'eval "$(paglets completion bash)"\nCOMP_WORDS=(paglets jobs wat) COMP_CWORD=2\n_paglets\n'
    environ = {**os.environ, **PLAIN, "PYTHONPATH": str(ROOT), "PAGLETS_HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script + 'printf "%s\\n" "${COMPREPLY[@]}"; complete -p paglets'],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("watch\ncomplete -F _paglets paglets\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_what_bash_is_offered_is_a_word_and_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    hostile = "words/x;touch pwned;#*"
    shell = f"paglets() {{ echo '{hostile}'; }}\n{script}\nCOMP_WORDS=(paglets jobs show w) COMP_CWORD=3\n_paglets\n"
    done = subprocess.run(
        ["bash", "--norc", "-c", shell + 'eval "printf %s ${COMPREPLY[0]}"'],
        cwd=tmp_path,
        env={**os.environ, **PLAIN},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (hostile, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_understand_their_lines(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "paglets _complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)

"""Words that name a script, and errors of scripts that cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.cli.main import COMMANDS, main
from paglets.cli.script import is_script, split, start


@pytest.mark.parametrize("word", ["fit.py", "./fit", "jobs/fit", "../x.py", "/opt/fit"])
def test_a_word_with_a_slash_or_the_end_of_a_python_file_is_a_script(word: str) -> None:
    assert is_script(word)


@pytest.mark.parametrize("word", ["", "fit", "-x.py", "--at=a/b", "--version", "py", *COMMANDS])
def test_other_words_are_commands_or_options(word: str) -> None:
    assert not is_script(word)


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("x.py --at y --python z", {}, "x.py --at y --python z"),
        ("--at gpu-a x.py --json", {"--at": "gpu-a"}, "x.py --json"),
        ("--python=/a/python --at=b jobs ps", {"--python": "/a/python", "--at": "b"}, "jobs ps"),
        ("--python", {"--python": ""}, ""),
        ("--json x.py", {}, "--json x.py"),
    ],
)
def test_only_at_and_python_stand_before_a_script(line: str, options: dict[str, str], words: str) -> None:
    assert split(line.split()) == (options, words.split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a script, a data file and a virtual environment."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("count.py", "data.csv", "venv/bin/python"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("conut.py", "no file 'conut.py' here: did you mean 'count.py'?"),
        ("zebra.py", "no file 'zebra.py' here"),
        ("./cout.py", "no file './cout.py': did you mean './count.py'?"),
        ("gone/fit.py", "no folder 'gone' with a script 'fit.py'"),
        ("venv/", "'venv/' is a folder, not a script"),
        ("--python venv count.py", "'venv' is a folder: did you mean --python venv/bin/python?"),
        ("--python gone/python count.py", "no interpreter 'gone/python'"),
        ("--python venv/bin/python count.py", "no interpreter 'venv/bin/python'"),
        ("--python nosuchpython count.py", "no interpreter 'nosuchpython'"),
        ("--python= count.py", "--python needs the path of an interpreter"),
        ("--python venv/bin/python jobs ps", "--python is for scripts: paglets --python PATH SCRIPT.py"),
        ("jobs ps", ""),
        ("--at gpu-a jobs ps", ""),
        ("", ""),
    ],
)
def test_a_script_that_cannot_be_started_is_told_in_a_sentence(folder: Path, line: str, problem: str) -> None:
    assert start(line.split(" ") if line else []) == problem


@pytest.mark.parametrize("line", ["count.py", "paglets.py", "./link.py"])
def test_a_file_that_hides_the_package_from_the_script_is_told(folder: Path, line: str) -> None:
    hiding = folder / "paglets.py"
    hiding.touch()
    (folder / "link.py").symlink_to("count.py")
    assert start([line]) == f"{str(hiding)!r} hides the package paglets from the script: rename that file"


@pytest.mark.parametrize("line", ["--json count.py", "--timeout 5 count.py", "--debug ./count.py"])
def test_options_of_commands_before_a_script_are_told(
    folder: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    assert "only --at and --python can precede a script" in capsys.readouterr().err


def test_a_file_that_could_be_meant_for_a_script_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data.csv"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["hint: paglets ./data.csv runs the file data.csv"]

"""What `pip install` gives: every file of the package, and metadata that is true."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from build_zipapp import ROOT, program_version

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATA = sorted(
    path.name
    for path in (ROOT / "paglets").rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith(".")
)


@pytest.mark.parametrize("name", DATA)
def test_pip_installs_each_data_file(name: str) -> None:
    suffixes = [each.removeprefix("*") for each in PROJECT["tool"]["setuptools"]["package-data"]["*"]]
    assert name.endswith(tuple(suffixes))


def test_the_classifiers_name_versions_of_python_that_ci_tests() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)
    tested = re.findall(r"for version in ([\d. ]+);", (ROOT / ".ci" / "run").read_text())
    assert named
    assert set(named) <= set(tested[0].split())


def test_the_version_is_written_down_once() -> None:
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "paglets.program.PROGRAM_VERSION"}
    written = f'PROGRAM_VERSION = "{program_version()}"'
    found = [path.name for path in (ROOT / "paglets").rglob("*.py") if written.partition(" ")[2] in path.read_text()]
    assert found == ["program.py"]

"""The scripts and commands of `docs/howto/`, run as each page shows them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from build_zipapp import ROOT
from tests.acceptance.rig import Finished, MakeMesh, Mesh

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
BLOCK = re.compile(r"^```(?P<kind>python|text|console)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"# (\w+\.py)\n")
PROGRAM = "paglets "


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A command line of a document with its output. `exact`: this is all of stdout."""

    line: str
    output: str
    exact: bool


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text()))


def scripts(page: Path) -> dict[str, str]:
    """Return the complete scripts of a page by name."""
    return {name[1]: block["text"] for block in blocks(page) if (name := SCRIPT.match(block["text"]))}


def all_scripts() -> dict[str, str]:
    return {name: text for page in PAGES for name, text in scripts(page).items()}


def shown(page: Path) -> Iterator[Shown]:
    for block in blocks(page):
        for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:] if block["kind"] != "python" else ():
            line, _, output = part.partition("\n")
            yield Shown(line=line, output=output, exact=block["kind"] == "text")


@pytest.fixture(scope="module")
def folder(make_mesh: MakeMesh) -> Iterator[Mesh]:
    """Start three hosts. The folder where commands run contains the scripts of all pages."""
    with make_mesh("guide") as made:
        made.start_three(gpus=1)
        for name, text in all_scripts().items():
            (made.work / name).write_text(text)
        yield made


def run(mesh: Mesh, line: str) -> Finished:
    assert line.startswith(PROGRAM), line
    return mesh.paglets(*shlex.split(line.removeprefix(PROGRAM)), PAGLETS_AT="laptop")


def test_every_script_has_a_name_of_its_own() -> None:
    names = [name for page in PAGES for name in scripts(page)]
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_its_scripts_where_they_stand(page: Path) -> None:
    lines = [each.line for each in shown(page)]
    assert [PROGRAM + name for name in scripts(page)] == [line for line in lines if line.endswith(".py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_is_printed(folder: Mesh, page: Path) -> None:
    for each in shown(page):
        done = run(folder, each.line)
        if each.exact:
            assert (done.code, done.out) == (0, each.output), f"{each.line}: {done.err}"
        else:
            assert "Traceback" not in done.err, done.err

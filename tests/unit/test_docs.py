"""The diagrams, lists, links and commands of the documents match the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from docs import generate
from docs.generator import commands
from docs.generator.outputs import OUTPUTS, SUMMARY_KEYS
from paglets.cli.commands.demo import DemoOutcome
from paglets.cli.commands.jobs.overview import status_counts
from paglets.cli.main import COMMANDS, move_shared_options
from paglets.cli.script import is_script, split
from paglets.config import checked_config, host_names
from paglets.groups.summary import Facts, Lists, Location, summarise
from paglets.host.records import exits
from paglets.slots.eligibility import REASONS
from paglets.slots.states import diagram

DOCS = generate.DOCS
DOCUMENTS = [
    *(DOCS.parent / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted(DOCS.rglob("*.md")),
]
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMANDS_IN = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN_COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ |ssh \S+ )?(?:\S*python3? )?(?:\S+/)?paglets(?:\.pyz)? (.+)$")


def test_the_diagram_of_job_statuses_is_drawn_from_the_table() -> None:
    assert diagram().strip() in (DOCS / "explanation" / "architecture.md").read_text()


def test_generated_parts_are_what_the_code_says() -> None:
    assert generate.outdated() == [], "run `python -m docs.generate`"
    assert generate.unused() == set()


def test_a_part_that_is_not_up_to_date_is_found_and_mended() -> None:
    old = "before\n<!-- generated: x -->\nold\n<!-- end: x -->\nafter\n"
    new = generate.updated(old, {"x": "| new |\n"})
    assert new == "before\n<!-- generated: x -->\n\n| new |\n\n<!-- end: x -->\nafter\n"
    assert generate.updated(new, {"x": "| new |\n"}) == new


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE):
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, 0) + 1
    return {anchor if nth == 0 else f"{anchor}-{nth}" for anchor, count in found.items() for nth in range(count)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(FENCED.sub("", document.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


NAMED_FILE = re.compile(r"`((?:\w+/)*\w+/\w+\.(?:py|sql|toml))`")
"""A file of the repository, from its root or from `paglets/`."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_file_that_is_named_exists(document: Path) -> None:
    for name in NAMED_FILE.findall(FENCED.sub("", document.read_text())):
        assert any((folder / name).exists() for folder in (DOCS.parent, DOCS.parent / "paglets")), name


def shown_commands(document: Path) -> Iterator[str]:
    """Yield the command lines of paglets in the examples of a document."""
    for kind, block in COMMANDS_IN.findall(document.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            found = SHOWN_COMMAND.match(line.strip())
            if found and (kind == "sh" or line.startswith("$ ")):
                yield re.split(r" (?:\||&&|>|&|#)", found[1])[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_command_lines_that_are_shown_are_understood(document: Path) -> None:
    for line in shown_commands(document):
        if is_script(split(shlex.split(line))[1][0]):
            continue
        name, *words = move_shared_options(shlex.split(line))
        assert name in COMMANDS, line
        parser = importlib.import_module(COMMANDS[name][0]).parser()
        _, further = parser.parse_known_args(words)
        assert len(further) <= 1, line  # `run` gives one that is left over to the last argument
        assert not [word for word in further if word.startswith("-")], line


def block(name: str, kind: str) -> str:
    """Return the only block of that kind in a document."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_configuration_that_is_shown_is_right(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(block("howto/add-a-machine.md", "toml"))
    assert host_names(checked_config(tmp_path / "hosts.toml")) == ("laptop", "gpu-a")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "paglets.service"
    unit.write_text(block("howto/run-as-a-service.md", "ini").replace("/usr/bin/python3", sys.executable))
    (tmp_path / "run").mkdir(mode=0o700)
    told = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_the_demo_prints_the_keys_that_are_described() -> None:
    assert {each.name for each in fields(DemoOutcome)} == set(OUTPUTS["demo"].keys)


def test_json_of_every_command_is_described_and_of_no_other() -> None:
    assert sorted(OUTPUTS) == sorted(each.name for each in commands.all_commands() if each.has_json)


def test_the_summary_has_the_keys_that_are_described() -> None:
    place = Location(host_name="a", host_url="http://a:8765")
    facts = Facts(
        group_id="g",
        status="ACTIVE",
        collector=place,
        home=place,
        return_home_when_complete=False,
        waiting_for_home=False,
        expected_count=0,
        completed_count=0,
        failed_count=0,
        created_at=1.0,
        completed_at=None,
        last_report_at=None,
    )
    lists = Lists(pending_jobs=(), results=(), failures=(), duplicate_reports=(), unexpected_reports=())
    summary = summarise(facts, lists)
    assert list(summary) == list(SUMMARY_KEYS)
    assert list(status_counts(summary | {"pending": {}, "failed": {}})) == list(OUTPUTS["jobs status"].keys)


def test_reasons_and_causes_are_in_the_protocol() -> None:
    text = (DOCS / "reference" / "protocol.md").read_text()
    for code in (*REASONS, *causes()):
        assert f"`{code}" in text, code


def causes() -> Iterator[str]:
    """Yield every cause that `cause_of` returns, or its beginning if it ends in a number or name."""
    for node in ast.walk(ast.parse(inspect.getsource(exits.cause_of))):
        if isinstance(node, ast.Name) and node.id.isupper():
            yield getattr(exits, node.id)
        elif isinstance(node, ast.Return) and isinstance(node.value, (ast.Constant, ast.JoinedStr)):
            given = node.value.values[0] if isinstance(node.value, ast.JoinedStr) else node.value
            assert isinstance(given, ast.Constant)
            yield str(given.value)

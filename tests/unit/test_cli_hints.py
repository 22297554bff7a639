"""Hints for words from other tools: each names an existing command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import pytest

from paglets.cli.hints import HINTS, INSTEAD, MOST_HINT_CHARACTERS
from paglets.cli.main import COMMANDS, main, parser_of
from paglets.cli.options import Parser
from paglets.core.text import command_name

BELOW = {
    name: [word for action in parser_of(name)._actions if isinstance(action.choices, dict) for word in action.choices]
    for name in COMMANDS
}
"""Command -> its subcommands."""

LINES = sorted({line for lines in (*HINTS.values(), list(INSTEAD.values())) for line in lines})


def told(arguments: Iterable[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the message and hints for a wrong command line, with `paglets` as the command's name."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.replace(command_name(), "paglets").splitlines()


@pytest.mark.parametrize("line", LINES)
def test_each_hint_is_short_and_begins_with_a_command_that_is_there(line: str) -> None:
    assert len(line) <= MOST_HINT_CHARACTERS - len("hint: ")
    name, *words = line.removeprefix("paglets ").split()
    if name == "SCRIPT.py":
        return
    assert name in COMMANDS, line
    flags = [word.rstrip(";") for word in words if word.startswith("-")]
    parser: Parser = parser_of(name)
    if BELOW[name] and words[0] not in flags:
        assert words[0] in BELOW[name], line
        parser = next(each.choices for each in parser._actions if isinstance(each.choices, dict))[words[0]]
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert set(flags) <= known, line


def test_no_word_of_the_table_is_a_command_by_now() -> None:
    assert not {name for name in HINTS if name in COMMANDS}
    assert not {name for name in HINTS if " " in name and name.split()[1] in BELOW[name.split()[0]]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("kill", ["no command 'kill'", "paglets jobs cancel GROUP[/JOB] cancels jobs"]),
        ("jobs kill words", ["no command 'jobs kill'", "paglets jobs cancel GROUP[/JOB] cancels jobs"]),
        ("run x", ["no command 'run'", "paglets SCRIPT.py runs a script that submits jobs"]),
        ("help kill", ["no command 'kill'", "paglets jobs cancel GROUP[/JOB] cancels jobs"]),
        ("host stop", ["unexpected 'stop'", "paglets stop stops the host on this machine"]),
        ("host laptop", ["unexpected 'laptop'", "paglets host --name laptop starts a host with that name"]),
        ("host 'a b'", ["unexpected 'a b'", "paglets host --name 'a b' starts a host with that name"]),
        ("jobs ps words", ["unexpected 'words'", "paglets jobs list words lists the jobs of that group"]),
        ("job", ["no command 'job'", "did you mean 'jobs'?"]),
        ("jobs hsitory", ["no command 'jobs hsitory'", "did you mean 'jobs history'?"]),
        ("frob", ["no command 'frob'", "paglets help lists the commands"]),
        ("jobs frob", ["no command 'jobs frob'", "paglets help jobs lists the commands"]),
        ("mesh frob", ["no command 'mesh frob'", "choose from hosts, forget"]),
        ("--name laptop host", ["--name must follow the command 'host'", "paglets host --name laptop"]),
        ("--all jobs ps", ["--all must follow the command 'jobs'", "paglets jobs ps --all"]),
        ("jobs --limit 5 ps", ["--limit must follow the command 'ps'", "paglets jobs ps --limit 5"]),
        ("--frob", ["missing command before --frob", "paglets help lists the commands"]),
        ("jobs list --status done", ["name a group to list its done jobs", "paglets jobs list GROUP --status done"]),
    ],
)
def test_a_wrong_command_line_names_the_right_one(
    line: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = told(shlex.split(line), capsys)
    assert [first.removeprefix("paglets: "), second.removeprefix("hint: ")] == said


@pytest.mark.parametrize("line", ["help", "help jobs", "help jobs why", "--help", "jobs --help", "help stop"])
def test_help_may_be_asked_for_in_both_ways(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith("usage: paglets ")


def test_what_a_hint_repeats_of_a_command_line_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    second = told(["--tag", "x" * 1000, "host"], capsys)[1]
    assert second == "hint: paglets host ... --tag ..."
    assert len(told(["y" * 1000], capsys)[0]) < 100

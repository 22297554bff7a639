"""The commands, from their parsers. The help that argparse prints differs between versions of Python."""

from __future__ import annotations

import argparse
import functools
import importlib
from dataclasses import dataclass
from typing import Any

from docs.generator.markdown import code, one_line, table
from docs.generator.outputs import OUTPUTS
from paglets.cli.host_flags import add_settings
from paglets.cli.main import COMMANDS
from paglets.cli.options import add_common

PREFIX = "paglets "
SETTINGS_OF = "host"
SILENT_DEFAULTS: tuple[Any, ...] = (None, False, "", [], argparse.SUPPRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that can be run. `name` is for example `jobs ps`."""

    name: str
    parser: argparse.ArgumentParser

    @property
    def actions(self) -> list[argparse.Action]:
        return [each for each in self.parser._actions if not isinstance(each, argparse._HelpAction)]

    @property
    def has_json(self) -> bool:
        return any("--json" in each.option_strings for each in self.actions)


def parts() -> dict[str, str]:
    found = all_commands()
    overview = table(("command", "what it does"), [(_link(each), one_line(about(each))) for each in found])
    common = table(("argument", "meaning"), COMMON)
    made = {"command overview": overview, "common arguments": common}
    return made | {f"{PREFIX}{each.name}": shown(each) for each in found}


def _link(command: Command) -> str:
    return f"[{code(command.name)}](#{command.name.replace(' ', '-')})"


def all_commands() -> list[Command]:
    """Return all commands in the order of `COMMANDS`, subcommands in the order of their definition."""
    found = []
    for name, (module, _) in COMMANDS.items():
        found += _commands(name, importlib.import_module(module).parser())
    return found


def _commands(name: str, parser: argparse.ArgumentParser) -> list[Command]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [each for word, inner in action.choices.items() for each in _commands(f"{name} {word}", inner)]
    return [Command(name=name, parser=parser)]


def about(command: Command) -> str:
    return " ".join((command.parser.description or "").split())


def shown(command: Command) -> str:
    """Return the part of a command: purpose, synopsis, arguments, examples and keys of its JSON."""
    pieces = [about(command) + "\n", f"```\n{synopsis(command)}\n```\n"]
    rows = [row for row in map(_row, command.actions) if row not in COMMON]
    if command.name != SETTINGS_OF and set(_host_rows()) <= set(rows):
        rows = [row for row in rows if row not in _host_rows()]
        pieces.append(f"All arguments of [`{SETTINGS_OF}`](#{SETTINGS_OF})" + (", and:\n" if rows else ".\n"))
    if rows:
        pieces.append(table(("argument", "meaning"), rows))
    if command.parser.epilog:
        pieces.append(f"```\n{_epilog(command.parser.epilog)}\n```\n")
    if command.has_json:
        pieces.append(_output(command.name))
    return "\n".join(pieces)


def _epilog(text: str) -> str:
    """Return examples with a prompt. Return any other text without indentation."""
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join([f"$ {line}" for line in lines[1:]] if lines[0] == "examples:" else lines)


def synopsis(command: Command) -> str:
    """Return the command line, broken into lines of at most 100 characters."""
    words = [f"paglets {command.name}", *_usage(command)]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < 100:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return "\n".join(lines)


def _usage(command: Command) -> list[str]:
    groups = [list(each._group_actions) for each in command.parser._mutually_exclusive_groups]
    words: list[str] = []
    settings = set(_host_rows()) if command.name != SETTINGS_OF else set()
    whole = bool(settings) and settings <= set(map(_row, command.actions))
    words += ["[ARGUMENTS OF HOST]"] if whole else []
    for action in command.actions:
        if whole and _row(action) in settings:
            continue
        group = next((each for each in groups if action in each), None)
        if group is None:
            words.append(_bracketed(action))
        elif group[0] is action:
            words.append(f"[{' | '.join(_long(each) for each in group)}]")
    return words


def _bracketed(action: argparse.Action) -> str:
    if action.option_strings:
        more = "..." if isinstance(action, argparse._AppendAction) else ""
        return f"[{_long(action)}]{more}"
    name = _metavar(action)
    return {"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}...]"}.get(str(action.nargs), name)


def _long(action: argparse.Action) -> str:
    flag = next((each for each in action.option_strings if each.startswith("--")), action.option_strings[0])
    return flag if action.nargs == 0 else f"{flag} {_metavar(action)}"


def _metavar(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _row(action: argparse.Action) -> tuple[str, str]:
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    names = [f"{each}{value}" for each in action.option_strings] or [_metavar(action)]
    given = (action.help or "") % {**vars(action), "prog": ""}
    given += f": {', '.join(sorted(action.choices))}" if action.choices else ""
    told = action.default in SILENT_DEFAULTS or action.nargs == 0 or "default" in given
    meaning = given if told else f"{given} (default {action.default})"
    return ", ".join(map(code, names)), one_line(meaning)


def _common() -> tuple[tuple[str, str], ...]:
    """Return the rows of arguments that almost every command has."""
    parser = argparse.ArgumentParser(add_help=False)
    add_common(parser, lambda options: 0)
    return tuple(map(_row, parser._actions))


COMMON = _common()


@functools.cache
def _host_rows() -> tuple[tuple[str, str], ...]:
    """Return the rows of the settings of a host, which several commands accept."""
    parser = argparse.ArgumentParser(add_help=False)
    add_settings(parser)
    return tuple(map(_row, parser._actions))


def _output(name: str) -> str:
    output = OUTPUTS.get(name)
    if output is None:
        return f"`--json`: its keys are not described yet (`docs/generator/outputs.py`, {name}).\n"
    rows = [(code(key), one_line(text)) for key, text in output.keys.items()]
    return f"With `--json`{output.note}:\n\n" + table(("key", "what"), rows)

"""`paglets completion`: print shell code that completes commands. The code runs `paglets _complete` for each word."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from paglets.cli.options import Parser
from paglets.cli.script import split
from paglets.client.host_client import HostClient
from paglets.core.errors import EXIT_DONE, PagletsError
from paglets.core.text import command_name
from paglets.program import called_program, child_command
from paglets.wire.keys import paglets_home
from paglets.wire.local_hosts import running_hosts

ASK_SECONDS = 1.0
"""The timeout for a host's answer. It is short: a shell that blocks is worse than a shell without completions."""

MOST_NAMES = 200

SCRIPTS = {
    "bash": """\
{function}_paglets() {{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        printf -v line %q "$line"
        COMPREPLY+=("$line")
    done < <(paglets _complete "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2> /dev/null)
    [ "${{#COMPREPLY[@]}}" = 0 ] && compopt -o default
    [[ ${{COMPREPLY[0]}} == */ ]] && compopt -o nospace
}}
complete -F _paglets paglets
""",
    "zsh": """\
{function}_paglets() {{
    local -a found
    found=("${{(@f)$(paglets _complete "${{(@)words[2,CURRENT]}}" 2> /dev/null)}}")
    if [ -n "$found" ]; then compadd -- $found; else _files; fi
}}
compdef _paglets paglets
""",
    "fish": """\
{function}complete -c paglets -e
complete -c paglets -a '(paglets _complete (commandline -opc)[2..-1] (commandline -ct) 2> /dev/null)'
""",
}

FUNCTIONS = {
    "bash": 'paglets() {{ {command} "$@"; }}\n',
    "zsh": 'paglets() {{ {command} "$@"; }}\n',
    "fish": "function paglets; {command} $argv; end\n",
}
"""The definition of a shell function `paglets`, by shell. It is printed if no program `paglets` is on PATH."""

INSTALL = {
    "bash": 'eval "$(paglets completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(paglets completion zsh)"       # in ~/.zshrc, after compinit',
    "fish": "paglets completion fish | source      # in ~/.config/fish/config.fish",
}


def parser() -> Parser:
    made = Parser(
        prog="paglets completion",
        description="Print shell code that completes commands, options, scripts, groups, jobs and hosts.",
        epilog="\n".join(
            [
                "Install it for all shells:",
                *(f"  {line}" for line in INSTALL.values()),
                "If paglets is not on PATH, write `python3 /path/to/paglets.pyz` instead. The output then also defines",
                "`paglets` as a shell function.",
            ]
        ),
    )
    made.add_argument("shell", choices=tuple(SCRIPTS), help="print code for this shell")
    made.set_defaults(handler=_script)
    return made


def _script(options: argparse.Namespace) -> int:
    command = shlex.join(child_command(called_program()))
    function = "" if command_name() == "paglets" else FUNCTIONS[options.shell].format(command=command)
    print(SCRIPTS[options.shell].format(function=function), end="")
    return EXIT_DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionSources:
    """The sources of completions: the commands, their parsers, and the functions in `NAMES`."""

    commands: Iterable[str]
    parser_of: Callable[[str], Parser]
    names: Mapping[str, Callable[[str], list[str]]]


def candidates(words: list[str], known: CompletionSources) -> list[str]:
    """Return completions of the last of `words`, which are the words after `paglets` on the command line.

    If the list is empty, the shell completes file names.
    """
    *before, last = (words[1:] if words[:1] == ["help"] and words[1:] else words) or [""]
    if before[-1:] == ["--at"]:
        return _values_of("NAME|URL", last, known)
    if before[-1:] == ["--python"]:
        return []
    before = split(before)[1]
    if not before:
        return sorted([*_beginning(last, known.commands), *_scripts(last)])
    try:
        parser = known.parser_of(before[0])
    except KeyError:
        return []
    for word in before[1:]:
        parser = _command_of(parser, word) or parser
    taker = _option_of(parser, before[-1])
    if taker is not None and taker.nargs != 0:
        return _values(taker, last, known)
    if last.startswith("-"):
        return _beginning(last, (name for action in parser._actions for name in action.option_strings))
    found: list[str] = []
    for action in parser._get_positional_actions():
        found += _values(action, last, known)
    return found


def _command_of(parser: Parser, word: str) -> Parser | None:
    for action in parser._get_positional_actions():
        if isinstance(action, argparse._SubParsersAction) and word in action.choices:
            chosen: Parser = action.choices[word]
            return chosen
    return None


def _option_of(parser: Parser, word: str) -> argparse.Action | None:
    return next((action for action in parser._actions if word in action.option_strings), None)


def _values(action: argparse.Action, last: str, known: CompletionSources) -> list[str]:
    if action.choices is not None:
        return _beginning(last, map(str, action.choices))
    return _values_of(str(action.metavar), last, known)


def _values_of(metavar: str, last: str, known: CompletionSources) -> list[str]:
    for kind, names in known.names.items():
        if kind in metavar:
            return _beginning(last, names(last))
    return []


def _scripts(last: str) -> list[str]:
    """Return the paths of Python files that begin with `last`.

    Unless `last` is empty, also return the folders that begin with it, each with a slash at the end.
    """
    folder, begin = os.path.split(last)
    try:
        with os.scandir(folder or os.curdir) as found:
            entries = [entry for entry in found if entry.name.startswith(begin) and not entry.name.startswith(".")]
    except OSError:
        return []
    files = [entry.name for entry in entries if entry.name.endswith(".py")]
    folders = [f"{entry.name}/" for entry in entries if last and entry.is_dir()]
    return [os.path.join(folder, name) for name in sorted([*files, *folders])[:MOST_NAMES]]


def _beginning(last: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(last)})[:MOST_NAMES]


# The functions below get completions from the host on this machine.


def _jobs(last: str) -> list[str]:
    """Return the names of all groups, or if `last` has a slash, the names of the jobs in its group."""
    group_id, slash, _ = last.partition("/")
    with HostClient(timeout=ASK_SECONDS) as client:
        if not slash:
            return [f"{line.group_id}/" for line in client.groups()]
        return [f"{group_id}/{key}" for key in client.group(group_id).job_keys]


def _groups(last: str) -> list[str]:
    with HostClient(timeout=ASK_SECONDS) as client:
        return [line.group_id for line in client.groups()]


def _hosts(last: str) -> list[str]:
    with HostClient(timeout=ASK_SECONDS) as client:
        return [view.host.name for view in client.hosts()]


def _artifacts(last: str) -> list[str]:
    with HostClient(timeout=ASK_SECONDS) as client:
        return [artifact.artifact_id for artifact in client.mesh_artifacts()[0]]


NAMES: dict[str, Callable[[str], list[str]]] = {
    "ID|GROUP/JOBKEY": lambda last: [*_artifacts(last), *_jobs(last)],
    "GROUP|GROUP/JOBKEY": lambda last: [*_groups(last), *_jobs(last)],
    "GROUP/JOBKEY": _jobs,
    "GROUP": _groups,
    "NAME|URL": _hosts,
    "HOST": _hosts,
    "ID": _artifacts,
    "NAME": lambda last: [host.name for host in running_hosts(paglets_home(os.environ))],
}
"""The function that returns the existing names, by kind of argument. The metavar of an argument contains its kind."""


def complete(words: list[str], parser_of: Callable[[str], Parser], commands: Iterable[str]) -> int:
    """Print the completions of the last word, one on each line. Print nothing if a host cannot answer."""
    try:
        found = candidates(words, CompletionSources(commands=commands, parser_of=parser_of, names=NAMES))
    except PagletsError:
        return EXIT_DONE
    for name in found:
        if name.isprintable():
            print(name)
    return EXIT_DONE

"""`paglets init`: write a configuration file for the mesh, or add a host's section to it."""

from __future__ import annotations

import argparse
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from paglets.cli.host_flags import add_settings, flags_of, name_of
from paglets.cli.options import Parser
from paglets.cli.output import say
from paglets.config import CONFIG_NAME, checked_config, host_names, settings_of
from paglets.core.command import NAME
from paglets.core.errors import EXIT_DONE, Conflict, Invalid
from paglets.core.terminal import put_hint, put_next
from paglets.core.text import command_name, home_path, printable
from paglets.core.unpacked import ARCHIVE_NAME
from paglets.native import load_tomli_w
from paglets.settings import user_path
from paglets.wire.keys import default_key_file

OF_MESH = ("mesh_version", "peers")
"""The settings that all hosts share. For the first host in a file, they are written to the table [mesh]."""

PATHS = ("data_dir", "key_file", "code_paths")

HEAD = """\
# The hosts of the mesh. Copy this file and paglets.pyz to a folder on every machine, and run `{command} host` there.
# Each host reads [mesh] and the section with its own name. `{command} config show` lists its settings;
# `{command} init --name NAME ...` adds a section; `{command} host --help` describes all settings.

"""


def parser() -> Parser:
    made = Parser(
        prog="paglets init",
        description=(
            f"Write the flags to a configuration file, by default {CONFIG_NAME} in the current folder. If the\n"
            "file exists, add a section for the host. Afterwards `paglets host` needs no flags."
        ),
        epilog=(
            "examples:\n"
            "  paglets init --mesh-version analysis --bind-public auto --tag laptop\n"
            "  paglets init --name gpu-a --bind-public auto --peer http://laptop:8765 --tag linux --tag gpu"
        ),
    )
    add_settings(made)
    made.set_defaults(handler=_init)
    return made


def _init(options: argparse.Namespace) -> int:
    name, path = name_of(options), user_path(options.config or CONFIG_NAME)
    flags = flags_of(options)
    for setting, checked in settings_of(name, flags=flags).items():
        # Write absolute paths: relative ones would depend on the folder where the host starts.
        if setting in PATHS:
            flags[setting] = str(checked.value) if isinstance(checked.value, Path) else list(checked.value)
    if os.path.lexists(path):
        text = _with_section(path, name, flags)
    else:
        shared = {setting: value for setting, value in flags.items() if setting in OF_MESH}
        own = {setting: value for setting, value in flags.items() if setting not in OF_MESH}
        text = HEAD.format(command=_command_anywhere()) + _toml({"mesh": shared} if shared else {}, name, own)
    _write(path, text)
    print(printable(path))
    _say_next(name, flags)
    return EXIT_DONE


def _command_anywhere() -> str:
    """Return the command that runs paglets on a machine that gets the configuration file and paglets.pyz."""
    return NAME if command_name() == NAME else f"python3 {ARCHIVE_NAME}"


def _with_section(path: Path, name: str, flags: dict[str, Any]) -> str:
    """Return the text of the configuration file with a new section for the host.

    Raises Conflict if the file has this section, Invalid if no section can be appended.
    """
    if name in host_names(checked_config(path)):
        hint = ["edit that section, or name another host with --name"]
        raise Conflict(f"{printable(path)} already has a section [hosts.{name}]", hint=hint)
    text = path.read_text("utf-8-sig").rstrip("\n") + "\n\n" + _toml({}, name, flags)
    try:
        host_names(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"cannot append a section to {printable(path)}", hint=["add it with an editor"]) from error
    return text


def _toml(tree: dict[str, Any], name: str, settings: dict[str, Any]) -> str:
    text: str = load_tomli_w().dumps({**tree, "hosts": {name: settings}}, multiline_strings=False)
    return text


def _write(path: Path, text: str) -> None:
    """Write a file atomically. A new file gets mode 600; an existing one keeps its mode. Links are followed."""
    target = path.resolve()
    try:
        descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                os.chmod(file.fileno(), target.stat().st_mode & 0o777 if target.exists() else 0o600)
            os.replace(draft, target)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise Invalid(f"cannot write {printable(path)}: {os.strerror(error.errno or 0)}") from error


def _say_next(name: str, flags: dict[str, Any]) -> None:
    if "bind_public" not in flags and "reachable" not in flags:
        say("other machines cannot connect to this host")
        put_hint('add `bind_public = "auto"` to its section, or `reachable = false` if NAT or a firewall is in the way')
    key = default_key_file(os.environ)
    made = "" if os.path.lexists(key) else " (the first start of a host creates it)"
    say(f"other machines need this file, paglets.pyz and the mesh key {home_path(key)}{made}")
    put_next(f"paglets host --name {name} starts the host (run it in the folder of this file)")

"""`paglets config`: check a configuration file, or show each setting of a host with its source."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paglets.cli.host_flags import add_settings, read_flags
from paglets.cli.options import Parser, add_command, add_commands, add_json
from paglets.cli.output import print_json, print_table, say
from paglets.config import (
    CONFIG_NAME,
    HostOptions,
    Setting,
    addresses_read,
    checked_config,
    host_names,
    settings_of,
)
from paglets.core.errors import EXIT_DONE, Invalid
from paglets.core.text import printable
from paglets.settings import SETTINGS, user_path
from paglets.slots.amounts import bytes_text
from paglets.wire.keys import default_key_file, paglets_home

DEFAULT = "default"
NO_LIMIT = "no limit"
OF_MACHINE = {
    "bind_public": "no: only this machine can connect",
    "public_url": "its own address",
    "cpu_cores": "all of this machine",
    "memory": "all of this machine",
    "temp_storage": "all that is free",
    "gpus": "all that are found",
    "artifact_max_size": NO_LIMIT,
    "artifact_storage_quota": NO_LIMIT,
}
"""The texts that `config show` prints for defaults without a value and defaults that depend on the machine."""


def parser() -> Parser:
    made = Parser(
        prog="paglets config",
        description="Check a configuration file, or show each setting of a host with its source.",
    )
    commands = add_commands(made)
    check = add_command(commands, "check", "check a whole configuration file", "config check", "config check my.toml")
    check.add_argument(
        "file",
        nargs="?",
        default=CONFIG_NAME,
        metavar="FILE",
        help=f"check this file (default: {CONFIG_NAME} in the current folder)",
    )
    add_json(check)
    check.set_defaults(handler=_check)
    show = add_command(
        commands,
        "show",
        "show each setting of a host and its source: a flag, the file or the default",
        "config show",
        "config show --name gpu-a --tag linux",
    )
    add_settings(show)
    add_json(show)
    show.set_defaults(handler=_show)
    return made


def _check(options: argparse.Namespace) -> int:
    path = user_path(options.file)
    try:
        file = checked_config(path)
    except Invalid as error:
        for mistake in error.details["mistakes"]:
            say(f"{path}: {mistake}")
        return error.exit_code
    names, addresses = host_names(file), addresses_read(file)
    if options.json:
        print_json({"file": str(path), "hosts": names, "addresses": addresses})
        return EXIT_DONE
    print(f"{printable(path)} is valid and describes {', '.join(names) or 'no host'}")
    for written, read in addresses.items():
        if read != written:
            print(f"{printable(written)} is read as {read}")
    return EXIT_DONE


def _show(options: argparse.Namespace) -> int:
    given = read_flags(options, Path.cwd())
    settings = settings_of(given.name, flags=given.flags, file=given.file)
    shown = {name: settings.get(name) or _default(name, given.name) for name in SETTINGS}
    if options.json:
        settings_json = {name: {"value": _plain(each.value), "source": each.source} for name, each in shown.items()}
        print_json({"name": given.name, "file": given.path and str(given.path), "settings": settings_json})
        return EXIT_DONE
    print(f"host {given.name}, {f'file {printable(given.path)}' if given.path else 'no configuration file'}")
    print_table(
        ("SETTING", "VALUE", "FROM"), [(name, _text(name, each.value), each.source) for name, each in shown.items()]
    )
    return EXIT_DONE


def _default(setting: str, name: str) -> Setting:
    places = {
        "data_dir": lambda: paglets_home(os.environ) / "hosts" / name,
        "key_file": lambda: default_key_file(os.environ),
    }
    if setting in places:
        return Setting(value=places[setting](), source=DEFAULT)
    return Setting(value=getattr(HostOptions(name=name), SETTINGS[setting][0]), source=DEFAULT)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _text(setting: str, value: Any) -> str:
    words = OF_MACHINE.get(setting, "")
    if value is None or (value == 0 and words == NO_LIMIT):
        return words
    if SETTINGS[setting][0].endswith("_bytes"):
        return bytes_text(value)
    if SETTINGS[setting][0].endswith("_seconds"):
        return f"{value:g} s"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)

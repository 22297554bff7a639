"""`paglets key`: show or create the mesh key that the commands and hosts of this user read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from paglets.cli.options import Parser, add_command, add_commands, add_json
from paglets.cli.output import print_json, say
from paglets.core.clock import SystemEntropy
from paglets.core.errors import EXIT_DONE, Conflict, Unknown
from paglets.core.text import printable
from paglets.settings import user_path
from paglets.wire.keys import KEY_VARIABLE, broken_link_text, client_key, create_key, default_key_file


def parser() -> Parser:
    made = Parser(
        prog="paglets key",
        description="Show or create the mesh key of this machine. Everyone with the key has full control of the mesh.",
    )
    commands = add_commands(made)
    show = add_command(commands, "show", "print the key", "key show")
    path = add_command(commands, "path", "print the path of the key file, to copy it", "key path")
    new = add_command(commands, "new", "create a key for a new mesh, or for a mesh that lost its key", "key new")
    for each, handler in ((show, _show), (path, _path), (new, _new)):
        each.add_argument("--key-file", metavar="FILE", help="use this key file (default: PAGLETS_HOME/mesh.key)")
        add_json(each)
        each.set_defaults(handler=handler)
    return made


def _show(options: argparse.Namespace) -> int:
    key = client_key(os.environ, key_file=_file(options))
    if options.json:
        print_json({"key": key.text, "source": key.source})
    else:
        print(key.text)
    return EXIT_DONE


def _path(options: argparse.Namespace) -> int:
    named = _file(options)
    client_key(os.environ, key_file=named)
    if named is None and os.environ.get(KEY_VARIABLE):
        hint = ["paglets key show prints the key"]
        raise Unknown(f"the key is in the environment variable {KEY_VARIABLE}, not in a file", hint=hint)
    path = named or default_key_file(os.environ)
    if options.json:
        print_json({"path": str(path)})
    else:
        print(printable(path))
    return EXIT_DONE


def _new(options: argparse.Namespace) -> int:
    path = _file(options) or default_key_file(os.environ)
    if path.is_symlink() and not path.exists():
        raise Conflict(f"{printable(path)} is {broken_link_text(path)}")
    if os.path.lexists(path):
        hint = ["keep that key if hosts use it; to replace the key of all hosts, move that file away first"]
        raise Conflict(f"{printable(path)} exists", hint=hint)
    create_key(path, SystemEntropy())
    if options.json:
        print_json({"path": str(path)})
    else:
        print(printable(path))
    say("copy this file with mode 600 to every machine of the mesh, and restart all hosts")
    return EXIT_DONE


def _file(options: argparse.Namespace) -> Path | None:
    return user_path(options.key_file).absolute() if options.key_file else None

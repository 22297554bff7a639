"""`paglets host`: run a host on this machine."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import socket
from pathlib import Path
from typing import Any

from paglets.cli.options import Parser, amount_of_bytes, key_and_value
from paglets.cli.output import say
from paglets.config import CONFIG_NAME, DEFAULT_MESH_VERSION, HostOptions, host_options, read_config
from paglets.core.errors import Invalid
from paglets.core.refs import DEFAULT_PORT

NOT_SETTINGS = ("name", "config")
REPEATED = {"peer": "peers", "tag": "tags", "property": "properties", "code_path": "code_paths"}


def main(arguments: list[str]) -> int:
    """Run a host until it is ended; gives the exit code."""
    options = options_of(parser().parse_args(arguments), Path.cwd())
    # Only now: wrong flags are told at once, without loading a whole host.
    app = importlib.import_module("paglets.host.app")
    return int(app.run_host(options))


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="paglets host", description="Run a host on this machine. Flags win over the configuration file.")
    add = made.add_argument
    add("--name", help="name in the mesh (default: this machine's host name)")
    add("--host", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    add("--bind-public", metavar="auto|ADDRESS", help="listen for other machines too, on that address of this one")
    add("--port", type=int, help=f"port to listen on (default {DEFAULT_PORT}; 0: any free one)")
    add("--public-url", metavar="URL", help="URL under which other hosts reach this one")
    add("--peer", action="append", metavar="URL", help="a host of the mesh to join; may be repeated")
    add(
        "--mesh-version", metavar="TEXT", help=f"only hosts of equal mesh version join (default {DEFAULT_MESH_VERSION})"
    )
    add("--tag", action="append", help="what jobs can ask for; may be repeated")
    add("--property", action="append", type=key_and_value, metavar="KEY=VALUE", help="shown to others; may be repeated")
    add("--data-dir", metavar="DIR", help="where the host keeps all (default PAGLETS_HOME/hosts/NAME)")
    add("--config", metavar="FILE", help=f"TOML file with a section [hosts.NAME] (default: {CONFIG_NAME} here, if any)")
    add("--key-file", metavar="FILE", help="file with the mesh key (default PAGLETS_HOME/mesh.key)")
    add("--cpu-cores", type=int, metavar="N", help="cores offered to jobs (default: all)")
    add("--memory", type=amount_of_bytes, metavar="SIZE", help="memory offered to jobs, as 16G (default: all)")
    add(
        "--temp-storage",
        type=amount_of_bytes,
        metavar="SIZE",
        help="temporary disk offered to jobs (default: all free)",
    )
    add("--gpus", type=int, metavar="N", help="GPUs offered to jobs (default: all found)")
    add("--code-path", action="append", metavar="DIR", help="folder that jobs import from; may be repeated")
    add(
        "--artifact-max-size",
        type=amount_of_bytes,
        metavar="SIZE",
        help="largest file kept for others, as 4G (default: no limit)",
    )
    add(
        "--artifact-storage-quota",
        type=amount_of_bytes,
        metavar="SIZE",
        help="disk for all files kept for others (default: no limit)",
    )
    return made


def options_of(given: argparse.Namespace, folder: Path) -> HostOptions:
    """The options that flags and configuration file make; without --config, `folder`/hosts.toml where it is there."""
    name = given.name or machine_name(socket.gethostname())
    return host_options(name, flags=_flags(given), file=_file(given.config, folder, name))


def _flags(given: argparse.Namespace) -> dict[str, Any]:
    flags = {
        REPEATED.get(flag, flag): value
        for flag, value in vars(given).items()
        if value is not None and flag not in NOT_SETTINGS
    }
    if "properties" in flags:
        flags["properties"] = dict(flags["properties"])
    return flags


def _file(named: str | None, folder: Path, name: str) -> dict[str, Any] | None:
    if named is None:
        path = folder / CONFIG_NAME
        found = read_config(path) if os.path.lexists(path) else None
        if found is not None and isinstance(found.get("hosts"), dict) and name not in found["hosts"]:
            say(f"{CONFIG_NAME} has no section [hosts.{name}]; it has {', '.join(found['hosts'])}")
        return found
    tree = read_config(Path(named).expanduser())
    hosts = tree.get("hosts")
    if isinstance(hosts, dict) and name not in hosts:
        raise Invalid(f"{named} has no section [hosts.{name}]: choose with --name one of {', '.join(hosts)}")
    return tree


def machine_name(hostname: str) -> str:
    """A host's name made of the machine's: its first part, lower case, other characters as '-'."""
    return re.sub(r"[^a-z0-9]+", "-", hostname.partition(".")[0].lower()).strip("-")[:63] or "host"

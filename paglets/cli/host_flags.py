"""The command-line flags for the settings of a host, and their combination with the configuration file."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.cli.options import AMOUNT_FLAGS, key_and_value, nearest
from paglets.cli.output import say
from paglets.config import CONFIG_NAME, DEFAULT_MESH_VERSION, HostOptions, checked_config, host_options
from paglets.core.errors import Invalid
from paglets.core.refs import DEFAULT_PORT, check_host_name
from paglets.settings import LOG_LEVELS, SETTINGS, user_path

BACKGROUND_FLAG = "--background"

REPEATED = {"peer": "peers", "tag": "tags", "property": "properties", "code_path": "code_paths"}
"""The setting of each repeatable flag."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting of a host, for its name and for the configuration file."""
    _add_place(parser.add_argument)
    _add_offers(parser.add_argument)


def _add_place(add: Callable[..., object]) -> None:
    """Add the flags for name, addresses, peers, tags, data directory, configuration file and key file."""
    add("--name", help="set the name in the mesh (default: this machine's host name)")
    add("--host", metavar="ADDRESS", help="listen on this address (default: 127.0.0.1)")
    add(
        "--bind-public",
        metavar="auto|ADDRESS",
        help="also listen on this address, for other machines; auto: choose an address",
    )
    add("--port", type=int, help=f"listen on this port (default: {DEFAULT_PORT}; 0: any free port)")
    add("--public-url", metavar="URL", help="announce this URL to other hosts instead of this host's address")
    add(
        "--unreachable",
        action="store_const",
        const=False,
        dest="reachable",
        help="fetch requests from other hosts, which cannot connect to this one (NAT, firewall)",
    )
    add("--peer", action="append", metavar="URL", help="join the mesh of this host; repeatable")
    add(
        "--mesh-version",
        metavar="TEXT",
        help=f"join only hosts with the same mesh version (default: {DEFAULT_MESH_VERSION})",
    )
    add("--tag", action="append", help="set a tag that jobs can require; repeatable")
    add(
        "--property",
        action="append",
        type=key_and_value,
        metavar="KEY=VALUE",
        help="set a property that other hosts show; repeatable",
    )
    add("--data-dir", metavar="DIR", help="store all data in DIR (default: PAGLETS_HOME/hosts/NAME)")
    add(
        "--config",
        metavar="FILE",
        help=f"use section [hosts.NAME] of this TOML file (default: {CONFIG_NAME} in the current folder, if any)",
    )
    add("--key-file", metavar="FILE", help="read the mesh key from this file (default: PAGLETS_HOME/mesh.key)")


def _add_offers(add: Callable[..., object]) -> None:
    """Add the flags for the resources that a host offers to jobs, for artifacts, time limits and the log level."""
    cores, memory, disk = AMOUNT_FLAGS
    add(*cores, dest="cpu_cores", type=int, metavar="N", help="offer this many cores to jobs (default: all)")
    add(*memory, dest="memory", metavar="SIZE", help="offer this much memory to jobs, such as 16G (default: all)")
    add(*disk, dest="temp_storage", metavar="SIZE", help="offer this much temporary disk to jobs (default: all free)")
    add("--gpus", type=int, metavar="N", help="offer this many GPUs to jobs (default: all found)")
    add("--pin-cpus", action="store_true", default=None, help="pin each job to its leased cores")
    add("--code-path", action="append", metavar="DIR", help="let jobs import from this folder; repeatable")
    add(
        "--artifact-max-size",
        metavar="SIZE",
        help="refuse artifacts larger than this, such as 4G (default: no limit)",
    )
    add(
        "--artifact-storage-quota",
        metavar="SIZE",
        help="limit the total size of artifacts (default: no limit)",
    )
    add(
        "--host-lost-after",
        type=float,
        metavar="SECONDS",
        help="resubmit jobs of a host that has not answered for this long, if their collector is here (default: 120)",
    )
    add(
        "--input-wait",
        type=float,
        metavar="SECONDS",
        help="let resubmitted jobs wait this long for inputs that no host has (default: 604800, 7 days)",
    )
    add(
        "--report-grace",
        type=float,
        metavar="SECONDS",
        help="end the process of a job that still runs this long after its report (default: 600)",
    )
    levels = ", ".join(LOG_LEVELS)
    add(
        "--log-level",
        metavar="LEVEL",
        help=f"write lines of this level and above to host.log: {levels} (default: info)",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFlags:
    """The name of a host, the values of its flags by setting, and path and content of the configuration file."""

    name: str
    flags: dict[str, Any]
    path: Path | None
    file: dict[str, Any] | None


def options_of(given: argparse.Namespace, folder: Path, *, re_enters: bool = False) -> HostOptions:
    """Return the options of a host from its flags and the configuration file.

    Without --config, the file is `folder`/hosts.toml if it exists.
    """
    found = read_flags(given, folder, re_enters=re_enters)
    return host_options(found.name, flags=found.flags, file=found.file)


def read_flags(given: argparse.Namespace, folder: Path, *, re_enters: bool = False) -> HostFlags:
    """Return the flags of a host and the content of the configuration file.

    Raises StartFailed if the file cannot be read, and Invalid if it has mistakes. If the file has sections of hosts but
    none for this host, raise Invalid if --config or --name was given, and print a warning otherwise. `re_enters`: print
    no warning, because the background process calls this function again and prints it.
    """
    name = name_of(given)
    path = user_path(given.config) if given.config else folder / CONFIG_NAME
    if not given.config and not os.path.lexists(path):
        return HostFlags(name=name, flags=flags_of(given), path=None, file=None)
    file = checked_config(path)
    hosts = file.get("hosts")
    if isinstance(hosts, dict) and name not in hosts:
        if given.config:
            raise Invalid(f"{path} has no section [hosts.{name}]", hint=[f"use --name with one of {', '.join(hosts)}"])
        if hosts and given.name:
            check_host_name(name)
            hint = [nearest(name, list(hosts)), f"`paglets init --name {name}` adds the section"]
            raise Invalid(f"{CONFIG_NAME} has no section [hosts.{name}]", hint=hint)
        if hosts and not re_enters:
            there = ", ".join(hosts)
            say(f"warning: {CONFIG_NAME} has no section [hosts.{name}], only {there}: {name} uses default settings")
    return HostFlags(name=name, flags=flags_of(given), path=path, file=file)


def name_of(given: argparse.Namespace) -> str:
    return given.name or machine_name(socket.gethostname())


def flags_of(given: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the flags on the command line, by the name of the setting."""
    flags = {
        REPEATED.get(flag, flag): value
        for flag, value in vars(given).items()
        if value is not None and REPEATED.get(flag, flag) in SETTINGS
    }
    if "properties" in flags:
        flags["properties"] = dict(flags["properties"])
    return flags


def machine_name(hostname: str) -> str:
    """Return the default name of a host: the machine's name up to the first dot, in lower case.

    Characters other than letters and digits become '-'.
    """
    return re.sub(r"[^a-z0-9]+", "-", hostname.partition(".")[0].lower()).strip("-")[:63] or "host"

"""Flags that describe a host, and the options they make together with the configuration file."""

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
from paglets.settings import SETTINGS, user_path

BACKGROUND_FLAG = "--background"

REPEATED = {"peer": "peers", "tag": "tags", "property": "properties", "code_path": "code_paths"}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting of a host, its name and its configuration file."""
    _add_place(parser.add_argument)
    _add_offers(parser.add_argument)


def _add_place(add: Callable[..., object]) -> None:
    """In its mesh and on its machine."""
    add("--name", help="name in the mesh (default: this machine's host name)")
    add("--host", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)")
    add("--bind-public", metavar="auto|ADDRESS", help="listen for other machines too, on that address of this one")
    add("--port", type=int, help=f"port to listen on (default {DEFAULT_PORT}; 0: any free one)")
    add("--public-url", metavar="URL", help="URL under which other hosts reach this one")
    add(
        "--unreachable",
        action="store_const",
        const=False,
        dest="reachable",
        help="nobody can connect to this host (NAT, firewall): it fetches what the others have for it",
    )
    add("--peer", action="append", metavar="URL", help="a host of the mesh to join; may be repeated")
    add(
        "--mesh-version", metavar="TEXT", help=f"only hosts of equal mesh version join (default {DEFAULT_MESH_VERSION})"
    )
    add("--tag", action="append", help="what jobs can ask for; may be repeated")
    add("--property", action="append", type=key_and_value, metavar="KEY=VALUE", help="shown to others; may be repeated")
    add("--data-dir", metavar="DIR", help="where the host keeps all (default PAGLETS_HOME/hosts/NAME)")
    add("--config", metavar="FILE", help=f"TOML file with a section [hosts.NAME] (default: {CONFIG_NAME} here, if any)")
    add("--key-file", metavar="FILE", help="file with the mesh key (default PAGLETS_HOME/mesh.key)")


def _add_offers(add: Callable[..., object]) -> None:
    """To jobs, and to those who keep files there."""
    cores, memory, disk = AMOUNT_FLAGS
    add(*cores, dest="cpu_cores", type=int, metavar="N", help="cores offered to jobs (default: all)")
    add(*memory, dest="memory", metavar="SIZE", help="memory offered to jobs, as 16G (default: all)")
    add(*disk, dest="temp_storage", metavar="SIZE", help="temporary disk offered to jobs (default: all free)")
    add("--gpus", type=int, metavar="N", help="GPUs offered to jobs (default: all found)")
    add("--pin-cpus", action="store_true", default=None, help="hold each job to the cores that it leased")
    add("--code-path", action="append", metavar="DIR", help="folder that jobs import from; may be repeated")
    add(
        "--artifact-max-size",
        metavar="SIZE",
        help="largest file kept for others, as 4G (default: no limit)",
    )
    add(
        "--artifact-storage-quota",
        metavar="SIZE",
        help="disk for all files kept for others (default: no limit)",
    )
    add(
        "--host-lost-after",
        type=float,
        metavar="SECONDS",
        help="resubmit jobs of a host that has not answered for so long, in groups collected here (default 120)",
    )
    add(
        "--input-wait",
        type=float,
        metavar="SECONDS",
        help="how long resubmitted jobs wait for inputs that no host has (default 604800, 7 days)",
    )
    add(
        "--report-grace",
        type=float,
        metavar="SECONDS",
        help="end the process of a job that has not ended so long after its report (default 600)",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFlags:
    """What a command line says of a host, its flags by setting, and the file that goes with it, where there is one."""

    name: str
    flags: dict[str, Any]
    path: Path | None
    file: dict[str, Any] | None


def options_of(given: argparse.Namespace, folder: Path, *, re_enters: bool = False) -> HostOptions:
    """The options that flags and configuration file make; without --config, `folder`/hosts.toml where it is there."""
    found = read_flags(given, folder, re_enters=re_enters)
    return host_options(found.name, flags=found.flags, file=found.file)


def read_flags(given: argparse.Namespace, folder: Path, *, re_enters: bool = False) -> HostFlags:
    """The file is read, and has a section of the host where --config or --name names it. Raises Invalid, StartFailed.

    `re_enters`: this is done again, by the copy of the archive that the host runs from, which then says the warnings.
    """
    name = name_of(given)
    path = user_path(given.config) if given.config else folder / CONFIG_NAME
    if not given.config and not os.path.lexists(path):
        return HostFlags(name=name, flags=flags_of(given), path=None, file=None)
    file = checked_config(path)
    hosts = file.get("hosts")
    if isinstance(hosts, dict) and name not in hosts:
        if given.config:
            raise Invalid(f"{path} has no section [hosts.{name}]: choose with --name one of {', '.join(hosts)}")
        if hosts and given.name:
            check_host_name(name)
            way = f"`paglets init --name {name}` adds it"
            raise Invalid(f"{CONFIG_NAME} has no section [hosts.{name}]; {nearest(name, list(hosts))}; {way}")
        if hosts and not re_enters:
            there = ", ".join(hosts)
            say(f"warning: {CONFIG_NAME} has no section [hosts.{name}], but {there}: {name} uses default settings")
    return HostFlags(name=name, flags=flags_of(given), path=path, file=file)


def name_of(given: argparse.Namespace) -> str:
    return given.name or machine_name(socket.gethostname())


def flags_of(given: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given, by setting."""
    flags = {
        REPEATED.get(flag, flag): value
        for flag, value in vars(given).items()
        if value is not None and REPEATED.get(flag, flag) in SETTINGS
    }
    if "properties" in flags:
        flags["properties"] = dict(flags["properties"])
    return flags


def machine_name(hostname: str) -> str:
    """A host's name made of the machine's: its first part, lower case, other characters as '-'."""
    return re.sub(r"[^a-z0-9]+", "-", hostname.partition(".")[0].lower()).strip("-")[:63] or "host"

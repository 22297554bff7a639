"""`paglets doctor`: find common problems on this machine and in the mesh, with advice."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from paglets.api.hosts import NO_ROUTE, BrokenLink, HostIdentity, MeshHostView
from paglets.cli.data_directory_checks import BAD, FEW_BYTES, WARNING, Check, folder_checks, holder_of, privacy_checks
from paglets.cli.options import Parser, add_common, client_of
from paglets.cli.output import adapt_commands, print_json
from paglets.cli.views.hosts import link_text, other_broken_links, refused_text
from paglets.cli.views.offline_hosts import forget_hint, is_alone, is_long_offline, is_superseded
from paglets.client.fan_out import ask_all, returning_errors
from paglets.client.host_client import HostClient
from paglets.client.hosts import has_not_joined, last_contact_text
from paglets.config import CONFIG_NAME, checked_config, data_dirs, host_names
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, NotAllowed, PagletsError, Unreachable, WrongClock
from paglets.core.text import counted, duration_text, printable
from paglets.host.runtime.status import BLOCKED
from paglets.native import psutil_problem
from paglets.program import PROGRAM_VERSION, called_program
from paglets.program_copy import unpack_problem
from paglets.settings import user_path
from paglets.slots.amounts import bytes_text
from paglets.wire.keys import SAME_FOR_COMMANDS, client_key, lost_key_hints, paglets_home
from paglets.wire.local_hosts import RunningHost, broken_run_files, running_hosts
from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.host.supervisor import ZYGOTE_LABEL

OLDEST_PYTHON = (3, 11)
MOST_SKEW_SECONDS = 5.0
"""The clock difference above which a host is reported. Signatures tolerate more, but times of hosts are misleading."""

ADVICE: dict[type[PagletsError], str] = {
    Unreachable: "start it, or let this machine connect to it (address, firewall)",
    WrongClock: "set the clocks of both machines, for example with NTP",
    NotAllowed: "it has a different mesh key: copy mesh.key from one machine to the other",
}

START_ADVICE = "its data is available again when it restarts"
REFUSED_ADVICE = "if it belongs to this mesh, copy mesh.key to it; otherwise remove its --peer"
NO_WAY_ADVICE = "start a host that both can connect to; it relays their traffic"
OLD_ADVICE = "its data is available again when a host starts with its old data directory, if that still exists"


def parser() -> Parser:
    made = Parser(
        prog="paglets doctor",
        description="Find common problems on this machine, in the data directories of its hosts and in the mesh, with "
        "advice. Nothing is changed, except that SQLite may leave an empty index file (-shm) beside the database of a "
        "crashed host.",
        epilog="examples:\n  paglets doctor\n  paglets doctor --name gpu-a --deep\n  paglets doctor --at gpu-a --json",
    )
    add_common(made, _doctor)
    made.add_argument("--name", help="check only the data directory of this host, not the mesh")
    made.add_argument("--data-dir", metavar="DIR", help="check only this data directory, not the mesh")
    made.add_argument("--deep", action="store_true", help="read all bytes of databases and files, which may take long")
    return made


def _doctor(options: argparse.Namespace) -> int:
    folders = _folders(options)
    hosts = running_hosts(paglets_home(os.environ))
    running = [folder for folder in folders if holder_of(folder, hosts).runs]
    checks = [*machine_checks(running)]
    for folder in folders:
        checks += folder_checks(folder, deep=options.deep, running=hosts)
    only = options.name or options.data_dir
    if not only and not any(check.name == "key" and check.state == BAD for check in checks):
        checks += _mesh_checks(options, running)
    if options.json:
        print_json({"checks": checks})
    else:
        for check in checks:
            print(f"{check.state:<9}{printable(check.name)}: {printable(adapt_commands(check.found))}")
            if check.advice:
                print(f"{'':<9}{printable(adapt_commands(check.advice))}")
    return EXIT_FAILED if any(check.state == BAD for check in checks) else EXIT_DONE


def _folders(options: argparse.Namespace) -> list[Path]:
    """Return the data directories that the options name, or by default those of all hosts of this machine."""
    if options.data_dir:
        return [user_path(options.data_dir)]
    hosts, named = paglets_home(os.environ) / "hosts", _named_folders()
    if options.name:
        return [named.get(options.name, hosts / options.name)]
    found = [*hosts.iterdir()] if hosts.is_dir() else []
    # The configuration file may also name folders of hosts on other machines, which do not exist on this machine.
    return sorted({each for each in (*found, *named.values()) if each.is_dir()})


def _named_folders() -> dict[str, Path]:
    """Return the data directories in the configuration file, by host.

    Return {} if the file is invalid: `_config` reports its errors.
    """
    if not os.path.lexists(CONFIG_NAME):
        return {}
    try:
        return data_dirs(checked_config(Path(CONFIG_NAME)))
    except PagletsError:
        return {}


# The functions below check this machine.


def machine_checks(running: Sequence[Path] = ()) -> Iterator[Check]:
    """Check interpreter, program, psutil, PAGLETS_HOME, disk, cache, run files, mesh key and configuration file.

    `running`: the data directories in which hosts run.
    """
    yield _python()
    yield _program()
    problem = psutil_problem()
    advice = "jobs still run, but their use of CPU, memory and disk is not shown"
    yield (
        Check(name="psutil", state=WARNING, found=problem, advice=advice)
        if problem
        else Check(name="psutil", found="available")
    )
    try:
        home = paglets_home(os.environ)
        yield from _home(home)
        yield from _cache(home / "cache")
        yield from (Check(name="run files", state=WARNING, found=text) for text in broken_run_files(home))
        yield _key(running)
    except PagletsError as error:
        yield Check(name="key", state=BAD, found=error.message, advice=_advice(error))
    if os.path.lexists(CONFIG_NAME):
        yield _config(Path(CONFIG_NAME))


def _program() -> Check:
    found = f"paglets {PROGRAM_VERSION}, {printable(called_program().path)}"
    problem = unpack_problem(os.environ)
    if not problem:
        return Check(name="program", found=found)
    advice = "each start takes 0.4 s longer until the program can be unpacked"
    return Check(name="program", state=WARNING, found=f"{found}, not unpacked: {problem}", advice=advice)


def _advice(error: PagletsError) -> str:
    """Return the hints and next steps of an error on one line."""
    return "; ".join(line.partition(": ")[2] for line in error.advice())


def _key(running: Sequence[Path]) -> Check:
    """Check the mesh key. Raises NotAllowed if it is missing and no running host still has it in memory."""
    try:
        return Check(name="key", found=f"from {client_key(os.environ).source}")
    except NotAllowed:
        if not running:
            raise
    found = f"its file is missing; the host in {', '.join(map(printable, running))} continues with the key that it read"
    return Check(name="key", state=BAD, found=found, advice="; ".join(lost_key_hints(os.environ, SAME_FOR_COMMANDS)))


def _python() -> Check:
    found = f"{platform.python_version()}, {sys.executable}, {sqlite_text(sqlite3.sqlite_version_info)}"
    if sys.version_info >= OLDEST_PYTHON:
        return Check(name="python", found=found)
    return Check(name="python", state=BAD, found=found, advice="paglets needs Python 3.11 or later")


def sqlite_text(version: tuple[int, ...]) -> str:
    """Return the SQLite version as text, with a warning if it has the WAL-reset bug (3.7.0 to 3.51.2).

    The bug can damage a database that two connections write and checkpoint at once. A host uses one connection.
    """
    note = " (its WAL-reset bug needs two writers at once: open no database of a host for writing)"
    return f"SQLite {'.'.join(map(str, version))}{note if (3, 7, 0) <= version < (3, 51, 3) else ''}"


def _home(home: Path) -> Iterator[Check]:
    there = next(path for path in (home, *home.absolute().parents) if path.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        advice = "hosts cannot start: change its owner to this user, or set PAGLETS_HOME to another folder"
        yield Check(name="home", state=BAD, found=f"{printable(home)} cannot be written", advice=advice)
        return
    if home.is_dir():
        user = os.geteuid() if os.name == "posix" else 0
        yield from (replace(check, name="home") for check in privacy_checks(home, user))
    free = shutil.disk_usage(there).free
    found = f"{printable(home)}, {bytes_text(free)} free"
    if free >= FEW_BYTES:
        yield Check(name="home", found=found)
    else:
        advice = "free disk space: results and files cannot be stored on a full disk"
        yield Check(name="home", state=WARNING, found=found, advice=advice)


def _cache(cache: Path) -> Iterator[Check]:
    """Check the cache folder. It contains the unpacked copies of the program and the unpacked files of psutil."""
    if not cache.is_dir():
        return
    copies = len(list(cache.glob("app/*")))
    if os.access(cache, os.W_OK | os.X_OK):
        yield Check(name="cache", found=f"{printable(cache)}, {counted(copies, 'copy', 'copies')} of the program")
    else:
        advice = "change its owner to this user, or remove it: hosts recreate it"
        yield Check(name="cache", state=WARNING, found=f"{printable(cache)} cannot be written", advice=advice)


def _config(path: Path) -> Check:
    try:
        names = host_names(checked_config(path))
    except PagletsError as error:
        return Check(name=CONFIG_NAME, state=BAD, found=error.message.removeprefix(f"{path}: "))
    return Check(name=CONFIG_NAME, found=f"describes {', '.join(names) or 'no host'}")


# The functions below check the mesh.


def _mesh_checks(options: argparse.Namespace, running: Sequence[Path]) -> Iterator[Check]:
    home = paglets_home(os.environ)
    if running and not options.at and not os.environ.get("PAGLETS_AT") and not running_hosts(home):
        found = f"a host runs in {printable(running[0])}, but its run file in {printable(home / 'run')} is missing"
        advice = "the host recreates that file within seconds; if not, name the host by its URL: --at URL"
        yield Check(name="host", state=WARNING, found=found, advice=advice)
        return
    try:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(client_of(options))
            yield from mesh_checks(client)
    except Unreachable as error:
        yield Check(name="host", state=WARNING, found=error.message, advice=_advice(error))
    except PagletsError as error:
        yield Check(name="host", state=BAD, found=error.message)


def mesh_checks(client: HostClient) -> Iterator[Check]:
    """Check the host that this command asks, then all hosts of its mesh.

    Check what the asked host reports about each other host, and whether that host answers this machine.
    """
    asked = client.identity()
    yield Check(name="host", found=f"connected to {asked.name}, {client.host.url}")
    state = client.mesh_state()
    for peer in state.peers:
        yield Check(name=f"peer {peer.url}", state=BAD, found=peer.problem.removeprefix(peer.url).strip())
    for refused in state.refused:
        yield Check(name="unknown host", state=WARNING, found=refused_text(refused), advice=REFUSED_ADVICE)
    for link in other_broken_links(state):
        yield Check(name=f"host {link.source}", state=BAD, found=link_text(link), advice=link_advice(link))
    views = client.hosts()
    yield from foreign_hosts(running_hosts(paglets_home(os.environ)), views, asked)
    for view, answer in zip(views, ask_all(returning_errors(partial(_identity_and_skew, client)), views), strict=True):
        if is_alone(views) and not view.online and not view.problem:
            yield Check(name=f"host {view.host.name}", state=WARNING, found=f"not in the same mesh as {asked.name}")
        elif isinstance(answer, PagletsError) and view.problem:
            yield host_check(view, None, asked, 0.0)
        elif isinstance(answer, PagletsError):
            advice = ADVICE.get(type(answer), "see the log of that host: host.log in its data directory")
            yield Check(name=f"host {view.host.name}", state=WARNING, found=answer.message, advice=advice)
        else:
            yield host_check(view, answer[0], asked, answer[1])


def link_advice(link: BrokenLink) -> str:
    """Return advice on a connection that one host cannot open to another."""
    return (
        f"open the port of {link.target} for {link.source}, or set `reachable = false` in [hosts.{link.target}] and "
        "restart it"
    )


def foreign_hosts(
    running: Iterable[RunningHost], views: Iterable[MeshHostView], asked: HostIdentity
) -> Iterator[Check]:
    """Yield a warning for each host on this machine that is not in the mesh of the asked host."""
    known = {view.host.store_id for view in views}
    for host in running:
        if host.store_id not in known:
            advice = f"to join it to the mesh of {asked.name}, start it with --peer {asked.url}"
            found = f"runs on this machine, outside the mesh of {asked.name}"
            yield Check(name=f"host {host.name}", state=WARNING, found=found, advice=advice)


def _identity_and_skew(client: HostClient, view: MeshHostView) -> tuple[HostIdentity | None, float]:
    """Return a host's identity, and the seconds by which its clock is ahead of this machine's clock.

    If the host is offline, return None and 0.
    """
    if not view.online:
        return None, 0.0
    began = time.time()
    identity = client.identity(view.host.ref)
    return identity, identity.wall_time - (began + time.time()) / 2 if identity.wall_time else 0.0


def host_check(view: MeshHostView, identity: HostIdentity | None, asked: HostIdentity, skew_seconds: float) -> Check:
    """Check one host.

    `identity`: its answer, or None. `asked`: the host whose program it should have. `skew_seconds`: how far its clock
    is ahead.
    """
    name = f"host {view.host.name}"
    if view.problem:
        if view.online or has_not_joined(view):
            return Check(name=name, state=BAD, found=view.problem)
        found = f"{last_contact_text(view)}: {view.problem}"
        return Check(name=name, state=WARNING, found=found, advice=_down_advice(view))
    if identity is None:
        return Check(name=name, state=WARNING, found=f"offline, {last_contact_text(view)}", advice=_down_advice(view))
    if abs(skew_seconds) > MOST_SKEW_SECONDS:
        found = f"its clock is {duration_text(abs(skew_seconds))} {'ahead' if skew_seconds > 0 else 'behind'}"
        return Check(name=name, state=WARNING, found=found, advice=ADVICE[WrongClock])
    trouble = _reported_problem(identity)
    if trouble is not None:
        return Check(name=name, state=WARNING, found=trouble[0], advice=trouble[1])
    disk = bytes_text(identity.free.temp_storage_bytes)
    online = "online" if view.host.reachable else "online, pulls requests"
    found = f"{online}, {identity.program}, Python {identity.python}, {disk} of its disk free for jobs"
    if identity.templates:
        modules = counted(identity.templates, "preloaded job module")
        found += f", {bytes_text(identity.template_bytes)} of memory used by {modules}"
    if (identity.program, identity.build) != (asked.program, asked.build):
        advice = f"its paglets.pyz differs from that of {asked.name}: copy the newer one to both and restart"
        return Check(name=name, state=WARNING, found=found, advice=advice)
    return Check(name=name, found=found)


def _down_advice(view: MeshHostView) -> str:
    if view.problem.startswith(NO_ROUTE):
        return NO_WAY_ADVICE
    if is_superseded(view):
        return OLD_ADVICE
    return f"{START_ADVICE}; {forget_hint([view.host.name])}" if is_long_offline(view) else START_ADVICE


def _reported_problem(identity: HostIdentity) -> tuple[str, str] | None:
    """Return the first problem that an online host reports and advice on it, or None if it reports no problem."""
    if "damaged" in identity.properties:
        found = f"online; its database was damaged or replaced by an older one: {identity.properties['damaged']}"
        return found, f"run `paglets doctor --name {identity.name}` on its machine"
    if BLOCKED in identity.properties:
        found = f"online, and starts nothing: {identity.properties[BLOCKED]}"
        if identity.properties[BLOCKED].startswith(ZYGOTE_LABEL):
            seconds = f"{HeartbeatTimeouts().replace_seconds:g} s"
            return found, f"nothing to do: the host replaces that process after {seconds}, and its jobs restart"
        return found, f"fix this problem; run `paglets doctor --name {identity.name}` on its machine for details"
    if identity.long_hooks:
        found = f"online; {identity.long_hooks[0]}"
        more = len(identity.long_hooks) - 1
        advice = f"`paglets jobs logs {identity.long_hooks[0].partition(':')[0]}` shows what it printed"
        return found + (f", and {counted(more, 'more hook')}" if more else ""), advice
    if identity.capacity.cpu_cores and not identity.free.cpu_cores and not identity.running_jobs:
        found = f"online, but starts no jobs; {bytes_text(identity.free.temp_storage_bytes)} of its disk free"
        advice = f"its disk is full or read-only: run `paglets doctor --name {identity.name}` on its machine"
        return found, advice
    return None

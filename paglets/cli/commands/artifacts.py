"""`paglets artifacts`: list, fetch, send and delete files that hosts keep."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paglets.cli import artifact_lookup
from paglets.cli.artifact_lookup import resolve_id
from paglets.cli.collectors import group_of
from paglets.cli.options import LOOK_SECONDS, Parser, add_command, add_commands, add_common, client_of
from paglets.cli.output import (
    ago,
    notice_if_slow,
    print_fields,
    print_json,
    print_table,
    say,
    waiting_for_all,
)
from paglets.cli.views.job_details import GONE
from paglets.cli.views.offline_hosts import MissingHosts, missing_hosts
from paglets.cli.views.transfer_progress import ProgressLine
from paglets.client.fan_out import ask_all
from paglets.client.host_client import HostClient
from paglets.client.pacing import RECEIVING
from paglets.core.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    Conflict,
    Invalid,
    NoRoom,
    PagletsError,
    Unknown,
)
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef
from paglets.core.text import duration_text, printable
from paglets.slots.amounts import bytes_text

HOSTS_SHARE = 0.8
"""The part of the timeout for hosts to list artifacts. The rest is for collectors to name jobs that reported them."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parser() -> Parser:
    made = Parser(
        prog="paglets artifacts",
        description="List, fetch, send and delete files that hosts keep. ID can be a prefix, such as art-3f2a.",
    )
    commands = add_commands(made)
    listing = add_command(commands, "list", "list the artifacts on all online hosts", "artifacts list --group words")
    which = listing.add_mutually_exclusive_group()
    which.add_argument(
        "--group", metavar="GROUP", help="list only files in this group's results, and files that its jobs left"
    )
    which.add_argument("--owner", metavar="ID", help="list only files of this paglet")
    add_common(listing, _list, asks_all=True)
    info = add_command(commands, "info", "describe an artifact, and name its host", "artifacts info words/monday")
    info.add_argument("artifact", metavar="ID|GROUP/JOBKEY", help="describe this artifact, or the file of this job")
    add_common(info, _info, asks_all=True)
    add_get(
        add_command(
            commands,
            "get",
            "fetch the file of an artifact, of a job, or of each job of a group",
            "artifacts get words/monday",
            "artifacts get art-3f2a result.db",
            "artifacts get --group words results",
        )
    )
    _add_put(
        add_command(
            commands,
            "put",
            "send a file to a host and store it there as an artifact",
            "artifacts put table.csv --at gpu-a --expires 7d",
        )
    )
    remove = add_command(commands, "rm", "delete artifacts", "artifacts rm art-3f2a art-77b0")
    remove.add_argument("artifacts", nargs="+", metavar="ID", help="delete these artifacts")
    add_common(remove, _remove)
    return made


def add_get(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("artifact", nargs="?", metavar="ID|GROUP/JOBKEY", help="fetch this artifact (not with --group)")
    add("target", nargs="?", metavar="TARGET", help="write to this file or folder (default: the current folder)")
    add(
        "--group",
        metavar="GROUP",
        help="fetch the files of all jobs of this group as TARGET/JOBKEY-NAME; create TARGET",
    )
    add("--move", action="store_true", help="delete the artifact after the file is stored here")
    add("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(last="target")
    add_common(parser, _get)


def _add_put(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", metavar="PATH", help="send this file")
    add("--owner", metavar="ID", help="assign the artifact to this paglet, on any host (default: the host itself)")
    add("--name", help="store the artifact under this name (default: the name of the file)")
    add("--expires", type=duration, metavar="TIME", help="delete it after this time, such as 7d (default: never)")
    add("--move", action="store_true", help="delete the local file after the artifact is stored")
    add_common(parser, _put)


def duration(text: str) -> float:
    """Parse a duration such as `90s`, `30m`, `12h`, `7d` or `2w`, and return it in seconds."""
    match = _DURATION.fullmatch(text)
    value = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30m, 12h or 7d")
    return value


# The functions below run the commands `list` and `info`.


def _list(options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client, notice_if_slow(waiting_for_all(seconds)):
        found, errors, owners = find_artifacts(
            client, options.owner, seconds, whose=not options.json, group_id=options.group
        )
        missing = missing_hosts(client.hosts(), errors)
    is_filtered = bool(options.group or options.owner)
    if options.json:
        print_json({"artifacts": [artifact.to_wire() for artifact in found], "unreachable": missing.lines()})
    else:
        now = time.time()
        headers = ("ID", "OF", "NAME", "SIZE", "HOST", "AGE", "EXPIRES")
        if found:
            print_table(headers, [artifact_row(artifact, now, owners[artifact.artifact_id]) for artifact in found])
        else:
            say(missing.none_of(f"artifacts of {options.group or options.owner}" if is_filtered else "artifacts"))
    missing.say(is_empty=is_filtered and not found)
    return missing.exit_code


def find_artifacts(
    client: HostClient, owner: str | None, seconds: float, *, whose: bool, group_id: str | None = None
) -> tuple[tuple[ArtifactRef, ...], tuple[PagletsError, ...], dict[str, str]]:
    """Return the artifacts on all hosts, an error for each host that did not answer, and the result of `owner_texts`.

    `owner`: only artifacts of this paglet. `group_id`: only artifacts of this group's collector and finished jobs.
    `whose`: look up the owners; otherwise, the last value is {}. The call takes at most `seconds`. Raises Unknown.
    """
    if group_id:
        try:
            owner = group_of(client, group_id).collector.agent_id
        except Unknown:
            if not client.undelivered(group_id, timeout=seconds).files:
                raise
    if not whose:
        return *client.mesh_artifacts(owner, group_id=group_id or "", timeout=seconds), {}
    end, for_hosts = time.monotonic() + seconds, seconds * HOSTS_SHARE
    asks: list[Callable[[], Any]] = [
        lambda: client.mesh_artifacts(owner, group_id=group_id or "", timeout=for_hosts),
        lambda: client.mesh_groups(for_hosts),
    ]
    (found, errors), (groups, _) = ask_all(lambda ask: ask(), asks)
    return found, errors, artifact_lookup.owner_texts(client, found, groups, end - time.monotonic())


def artifact_row(artifact: ArtifactRef, now: float, of: str) -> tuple[object, ...]:
    """Return the table row of an artifact. `of`: the text from `owner_texts` that names its owner."""
    return (
        artifact.artifact_id,
        of,
        artifact.name,
        bytes_text(artifact.size_bytes),
        artifact.host_name,
        duration_text(now - artifact.created_at),
        "" if artifact.expires_at is None else f"in {duration_text(artifact.expires_at - now)}",
    )


def _info(options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with client_of(options) as client:
        view = client.artifact(resolve_id(client, options.artifact))
        owners = {} if options.json else owner_text(client, view.artifact, seconds)
    if options.json:
        print_json(view)
        return EXIT_DONE
    artifact, now = view.artifact, time.time()
    print_fields(
        {
            "id": artifact.artifact_id,
            "name": artifact.name,
            "size": f"{artifact.size_bytes:,} bytes",
            "sha256": artifact.sha256,
            "of": owners[artifact.artifact_id],
            "host": f"{view.host.name} ({view.host.url})",
            "created": ago(artifact.created_at, now),
            "expires": "" if artifact.expires_at is None else f"in {duration_text(artifact.expires_at - now)}",
        }
    )
    return EXIT_DONE


def owner_text(client: HostClient, artifact: ArtifactRef, seconds: float) -> dict[str, str]:
    """Return the result of `owner_texts` for one artifact. Print the errors of hosts that do not answer on stderr."""
    with notice_if_slow(waiting_for_all(seconds)):
        groups, errors = client.mesh_groups(seconds)
        owners = artifact_lookup.owner_texts(client, [artifact], groups, seconds)
    MissingHosts(errors=tuple(errors.values())).say()
    return owners


# The functions below run the command `get`.


def _get(options: argparse.Namespace) -> int:
    if options.group:
        if options.target is not None:
            raise Invalid("--group takes a folder, not an artifact", hint=["paglets artifacts get --group GROUP DIR"])
        return _get_group(options, Path(options.artifact or "."))
    if options.artifact is None:
        raise Invalid("missing artifact", hint=["name an ID, GROUP/JOBKEY or --group GROUP"])
    with client_of(options) as client:
        artifact = _existing(client, resolve_id(client, options.artifact))
        path = fetch(client, artifact, options.target or ".", move=options.move, force=options.force)
    if options.json:
        print_json(_fetched(path, artifact))
    else:
        print(printable(path))
    return EXIT_DONE


def _existing(client: HostClient, artifact_id: str) -> ArtifactRef:
    try:
        return client.artifact(artifact_id).artifact
    except Unknown as error:
        raise _gone(client, error) from None


def _gone(client: HostClient, error: Unknown) -> Unknown:
    return Unknown(f"{error.message}: {GONE}{missing_hosts(client.hosts()).note()}")


def _fetched(path: Path, artifact: ArtifactRef) -> dict[str, object]:
    return {"path": str(path), "artifact": artifact.to_wire()}


def _get_group(options: argparse.Namespace, folder: Path) -> int:
    if not os.path.isdir(folder.parent):
        raise Invalid(f"no folder {printable(folder.parent)}")
    files: list[dict[str, object]] = []
    errors: list[PagletsError] = []
    with client_of(options) as client:
        found = artifact_lookup.artifacts_of_group(client, options.group)
        _make_folder(folder)
        names = artifact_lookup.file_names((key, artifact.name) for key, artifact in found.artifacts)
        for (key, artifact), name in zip(found.artifacts, names, strict=True):
            try:
                path = fetch(client, artifact, folder / name, move=options.move, force=options.force)
            except NoRoom:
                raise
            except PagletsError as error:
                errors.append(error)
                say(f"{key}: {error}")
                continue
            files.append({"job_key": key, **_fetched(path, artifact)})
            if not options.json:
                print(printable(path), flush=True)
    if options.json:
        print_json(
            {
                "files": files,
                "errors": [error.to_wire() for error in (*errors, *found.unreachable)],
                **to_json(found.counts),
            }
        )
    for line in found.remarks():
        say(line)
    for unreachable in found.unreachable:
        say(f"there may be more files of {options.group}: {unreachable.message}")
    return EXIT_FAILED if errors else EXIT_UNREACHABLE if found.unreachable else EXIT_DONE


def _make_folder(folder: Path) -> None:
    """Create a folder if it does not exist. Raises Invalid if that fails."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Invalid(f"cannot create folder {printable(folder)}: {os.strerror(error.errno or 0)}") from error


def fetch(client: HostClient, artifact: ArtifactRef, target: str | Path, *, move: bool, force: bool) -> Path:
    """Download an artifact to `target` and return the path.

    `move`: then delete the artifact. `force`: replace an existing file. Otherwise, raises Conflict if a file with other
    content exists.
    """
    if target == "-":
        raise Invalid("cannot write an artifact to stdout", hint=["name a file or folder"])
    shown = artifact.name if os.path.isdir(target) else os.path.basename(target) or artifact.name
    steps: set[str] = set()
    try:
        with ProgressLine(shown) as line:

            def progress(what: str, done: int, total: int) -> None:
                steps.add(what)
                line(what, done, total)

            path = client.download_artifact(artifact, target, move=move, replace=force, progress=progress)
    except KeyboardInterrupt:
        say(f"interrupted: the received part of {printable(shown)} is kept; run the same command to resume")
        raise
    except Unknown as error:
        raise _gone(client, error) from None
    except Conflict as error:
        if "there" not in error.details:
            raise
        raise Conflict(error.details["there"], hint=["name another target, or replace it with --force"]) from None
    there = "" if RECEIVING in steps else f"{printable(path)} exists already with the same content"
    deleted = f"deleted {artifact.artifact_id} on its host" if move else ""
    if there or deleted:
        say("; ".join(filter(None, (there, deleted))))
    return path


# The functions below run the commands `put` and `rm`.


def _put(options: argparse.Namespace) -> int:
    path = Path(options.path)
    try:
        with client_of(options, of_one=True) as client, ProgressLine(path.name) as progress:
            made = client.upload_artifact(
                path,
                name=options.name,
                owner=options.owner,
                expires_in_seconds=options.expires,
                move=options.move,
                progress=progress,
            )
    except KeyboardInterrupt:
        say(f"interrupted: the sent part of {printable(path.name)} is kept for an hour; run the same command to resume")
        raise
    if options.json:
        print_json(made.to_wire())
    else:
        print(made.artifact_id)
    return EXIT_DONE


def _remove(options: argparse.Namespace) -> int:
    deleted: list[str] = []
    errors: list[PagletsError] = []
    with client_of(options) as client:
        for text in options.artifacts:
            try:
                artifact_id = resolve_id(client, text)
                client.delete_artifact(artifact_id)
                deleted.append(artifact_id)
            except PagletsError as error:
                errors.append(error)
                say(error)
    if options.json:
        print_json({"deleted": deleted, "errors": [error.to_wire() for error in errors]})
    return errors[0].exit_code if errors else EXIT_DONE

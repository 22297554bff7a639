"""References to hosts, paglets, files and artifacts. Ids in them are authoritative, addresses are hints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from paglets.core.errors import Invalid
from paglets.core.record import from_json, to_json

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
AGENT_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
GROUP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")
ARTIFACT_ID = re.compile(r"art-[a-z0-9]{8,60}")
MAX_JOB_KEY_CHARACTERS = 200
MAX_FILE_NAME_BYTES = 200
"""The maximum length of a file name in bytes. File systems allow 255, but a file in transfer gets a longer name."""

MAX_BLOB_BYTES = 1 << 50
MAX_LIFETIME_SECONDS = 100 * 365 * 86400.0
Kind = Literal["paglet", "job", "collector"]
"""The kinds of paglets."""

DEFAULT_PORT = 8765
"""The default port of a host, and the port of URLs that contain none."""

_DEVICES = frozenset(["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))])
"""The names of devices on Windows, also with any suffix. They are refused, because ids become directory names."""

SHORT_ID_CHARACTERS = 8
"""The number of characters of the short form of a store id, which commands print and accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRef:
    """A reference to a host. `store_id` identifies the host; `name` is for people, and `url` for connections."""

    store_id: str
    name: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRef:
    """A reference to a paglet, with its last known host."""

    agent_id: str
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """A reference to a blob: bytes that are named by their SHA-256 (64 lower-case hexadecimal digits)."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """A reference to a large value that is stored as an artifact, in tagged JSON and UTF-8."""

    artifact_id: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file that moves with a paglet. Each host puts the file into the paglet's scratch directory, under `name`.

    If `mode` is "move", the original of a registered file is removed once another host has the paglet. `attempt` is the
    job's attempt that registered the file, or 0 for an input of the job or a file that a checkpoint includes. A new
    attempt starts with only the files whose `attempt` is 0. `registered` is True if the code of the paglet registered
    the file, and False for an input.
    """

    name: str
    sha256: str
    size_bytes: int
    mode: str = "copy"
    attempt: int = 0
    registered: bool = False

    @property
    def blob(self) -> BlobRef:
        return BlobRef(sha256=self.sha256, size_bytes=self.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """A reference to an artifact, a file that a host keeps. `download_artifact` fetches the file.

    The record of a job contains the reference as a dict, which `ArtifactRef.from_wire(record["result"]["artifact"])`
    converts. Fields:

        artifact_id          Id that is unique in the mesh, `art-...`.
        name                 Name of the file.
        size_bytes           Size in bytes.
        sha256               SHA-256 of the bytes, 64 hexadecimal digits.
        host_name            Host where the file was when the reference was made.
        owner                Id of the paglet that the file moves and ends with; "" means the host.
        created_at           Seconds since the epoch.
        expires_at = None    Seconds since the epoch when the file is deleted; None means never.
        group_id = None      Group of the finished job that registered the file, if no hook took it; else None.
        job_key = ""         Key of that job, else "".
    """

    artifact_id: str
    name: str
    size_bytes: int
    sha256: str
    host_name: str
    owner: str
    created_at: float
    expires_at: float | None = None
    group_id: str | None = None
    job_key: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as a JSON object. `group_id` and `job_key` are left out if `group_id` is None."""
        wire: dict[str, Any] = to_json(self)
        if self.group_id is None:
            del wire["group_id"], wire["job_key"]
        return wire

    @classmethod
    def from_wire(cls, wire: ArtifactRef | dict[str, Any]) -> ArtifactRef:
        """Return the reference that `to_wire` converted; an ArtifactRef is returned unchanged. Raises Invalid."""
        return wire if isinstance(wire, ArtifactRef) else from_json(cls, wire)

    @property
    def blob(self) -> BlobRef:
        """Size and SHA-256 of the bytes."""
        return BlobRef(sha256=self.sha256, size_bytes=self.size_bytes)


ArtifactRef.__module__ = "paglets.artifacts"  # Users import the class from this module.


def check_host_name(name: str) -> str:
    """Return `name` if it is a valid name of a host. Raises Invalid otherwise."""
    if not NAME.fullmatch(name) or name in _DEVICES:
        raise Invalid(
            f"{name[:80]!r} cannot name a host: use lower-case letters, digits and '-', "
            "first a letter or digit, 63 characters at most, and no device name such as 'con'"
        )
    return name


def check_agent_id(agent_id: str) -> str:
    """Return `agent_id` if it is a valid id of a paglet, which also names a directory. Raises Invalid otherwise."""
    if not AGENT_ID.fullmatch(agent_id) or agent_id.endswith(".") or agent_id.partition(".")[0] in _DEVICES:
        raise Invalid(f"{agent_id[:80]!r} is not the id of a paglet")
    return agent_id


def check_group_id(group_id: str) -> str:
    """Return `group_id` if it is a valid id of a group. Raises Invalid otherwise."""
    if not GROUP_ID.fullmatch(group_id):
        raise Invalid(
            f"{group_id[:80]!r} cannot name a group: use letters, digits, '.', '_' and '-', 100 characters at most"
        )
    return group_id


def check_job_key(job_key: str) -> str:
    """Return `job_key` if it is valid. Raises Invalid otherwise. A job key is a label and never used as a path.

    It must not start with `$`, because job keys are keys of JSON objects, in which `$` marks a tagged value.
    """
    if not job_key or len(job_key) > MAX_JOB_KEY_CHARACTERS or not job_key.isprintable() or job_key[0] == "$":
        raise Invalid(
            f"{job_key[:80]!r} cannot be a job key: use 1 to {MAX_JOB_KEY_CHARACTERS} printable characters, "
            "the first not '$'"
        )
    return job_key


def check_sha256(sha256: str) -> str:
    """Return `sha256` if it is 64 lower-case hexadecimal digits, which are safe in a path. Raises Invalid otherwise."""
    if not SHA256.fullmatch(sha256):
        raise Invalid(f"{sha256[:80]!r} is not a SHA-256 of 64 lower-case hexadecimal digits")
    return sha256


def check_blob(blob: BlobRef) -> BlobRef:
    """Return `blob` if its hash and size are valid. Raises Invalid otherwise."""
    check_sha256(blob.sha256)
    if not 0 <= blob.size_bytes <= MAX_BLOB_BYTES:
        raise Invalid(f"size_bytes is {blob.size_bytes}: it must be from 0 to {MAX_BLOB_BYTES}")
    return blob


def check_artifact_id(artifact_id: str) -> str:
    """Return `artifact_id` if it is a valid id of an artifact. Raises Invalid otherwise."""
    if not ARTIFACT_ID.fullmatch(artifact_id):
        raise Invalid(f"{artifact_id[:80]!r} is not the id of an artifact: such an id begins with 'art-'")
    return artifact_id


def check_lifetime(seconds: float | None, *, is_left: bool = False) -> float | None:
    """Return `seconds` if it is a valid lifetime of an artifact. Raises Invalid otherwise. None means until deletion.

    `is_left` is True for the remaining lifetime of an existing artifact. It may be 0, and exceed the maximum after a
    change of the clock.
    """
    most = MAX_LIFETIME_SECONDS * (2 if is_left else 1)
    if seconds is not None and not (0 <= seconds <= most and (seconds or is_left)):
        raise Invalid(
            f"expires_in_seconds is {seconds:g}: it must be more than 0 and at most {MAX_LIFETIME_SECONDS:.0f}, "
            "or None to keep the artifact until it is deleted"
        )
    return seconds


def check_file_name(name: str) -> str:
    """Return `name` if it is a valid file name on all supported systems. Raises Invalid otherwise."""
    problem = _file_name_problem(name)
    if problem:
        raise Invalid(f"{name[:80]!r} cannot name a file: {problem}")
    return name


def visible_name(name: str) -> str:
    """Return `name` with `_` for a leading dot or hyphen, so that it names no hidden file and looks like no option."""
    return f"_{name[1:]}" if name.startswith((".", "-")) else name


def _file_name_problem(name: str) -> str:
    if not name or name in (".", ".."):
        return "a name is never empty, '.' or '..'"
    if any(char in name for char in '/\\:*?"<>|'):
        return 'use a plain name, without folders, drives or any of / \\ : * ? " < > |'
    if not name.isprintable():
        return "it has invisible characters"
    if name[-1] in ". " or name[0] == " ":
        return "it must not begin with a space, nor end with one or with a dot"
    if name.partition(".")[0].strip().lower() in _DEVICES:
        return "that is the name of a device"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return f"it is longer than {MAX_FILE_NAME_BYTES} bytes" if size > MAX_FILE_NAME_BYTES else ""

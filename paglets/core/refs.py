"""Values that name things: a host, a paglet. Addresses in them are hints, ids are the truth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.record import from_json, to_json

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
AGENT_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
GROUP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_JOB_KEY_CHARACTERS = 200
DEFAULT_PORT = 8765
"""Where a host listens unless it is told otherwise, and what a URL of one without a port means."""

_DEVICES = frozenset(["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))])
"""Names that Windows takes for devices, with any suffix. Host names and paglet ids name directories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRef:
    """A host: `store_id` is who it is, `name` and `url` are how people and sockets find it."""

    store_id: str
    name: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRef:
    """A paglet, and the host where it was last known to live."""

    agent_id: str
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """A named blob with an owner. Times are seconds since the epoch; no `expires_at`: kept until deleted."""

    artifact_id: str
    name: str
    size_bytes: int
    sha256: str
    host_name: str
    owner: str
    created_at: float
    expires_at: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """The fields as a JSON object, as they stand in a job's result payload."""
        wire: dict[str, Any] = to_json(self)
        return wire

    @classmethod
    def from_wire(cls, wire: ArtifactRef | dict[str, Any]) -> ArtifactRef:
        """The ref that `to_wire` wrote; a ref is given back as it is. Raises Invalid naming the field."""
        return wire if isinstance(wire, ArtifactRef) else from_json(cls, wire)


ArtifactRef.__module__ = "paglets.artifacts"  # its public path, which also names it on the wire


def check_host_name(name: str) -> str:
    """`name` if it may name a host, else Invalid."""
    if not NAME.fullmatch(name) or name in _DEVICES:
        raise Invalid(
            f"{name[:80]!r} cannot name a host: use lower-case letters, digits and '-', "
            "first a letter or digit, 63 characters at most, and no device name such as 'con'"
        )
    return name


def check_agent_id(agent_id: str) -> str:
    """`agent_id` if it is well formed, else Invalid: it names rows and directories."""
    if not AGENT_ID.fullmatch(agent_id) or agent_id.endswith(".") or agent_id.partition(".")[0] in _DEVICES:
        raise Invalid(f"{agent_id[:80]!r} is not the id of a paglet")
    return agent_id


def check_group_id(group_id: str) -> str:
    """`group_id` if it is well formed, else Invalid."""
    if not GROUP_ID.fullmatch(group_id):
        raise Invalid(
            f"{group_id[:80]!r} cannot name a group: use letters, digits, '.', '_' and '-', 100 characters at most"
        )
    return group_id


def check_job_key(job_key: str) -> str:
    """`job_key` if it may name a job of a group, else Invalid. It is a label, never a path.

    It must not begin with `$`: job keys are keys of JSON objects, and there `$` marks a tagged value.
    """
    if not job_key or len(job_key) > MAX_JOB_KEY_CHARACTERS or not job_key.isprintable() or job_key[0] == "$":
        raise Invalid(
            f"{job_key[:80]!r} cannot be a job key: 1 to {MAX_JOB_KEY_CHARACTERS} printable characters, "
            "the first not '$'"
        )
    return job_key

"""Deliberate bugs in the handling of bytes, made like those in `breaks`. Some replace the blob store."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from paglets.core.refs import BlobRef
from tests.fakes.blobs import MemoryBlobs
from tests.simulator.breaks import (
    Break,
    by_sql,
    changing_replies,
    finds_none,
    preceded,
    report_after_the_end,
    rewritten,
    second_outcome,
)
from tests.simulator.faults import Trouble
from tests.simulator.network import Weather
from tests.simulator.profile import Profile, calm
from tests.simulator.scripts import LEAVES
from tests.simulator.tampering import Tampering


class Unsynced(MemoryBlobs):
    """A store that does not sync whole blobs, so that a power cut loses them."""

    def finish(self, blob: BlobRef) -> None:
        super().finish(blob)
        self.disk.unsynced[blob.sha256] = None


class Early(MemoryBlobs):
    """A store that reports partial blobs as whole."""

    def size(self, sha256: str) -> int | None:
        whole = super().size(sha256)
        return whole if whole is not None or not self.partial(sha256) else self.partial(sha256)


class Unhashed(MemoryBlobs):
    """A store that does not compare bytes with their hash."""

    def finish(self, blob: BlobRef) -> None:
        self.disk.whole[blob.sha256] = self.disk.partial.pop(blob.sha256, b"")


class Boastful(MemoryBlobs):
    """A store that reports one byte too many of a partial blob, so that a resumed transfer leaves a gap."""

    def partial(self, sha256: str) -> int:
        there = super().partial(sha256)
        return there + 1 if there else 0


class Hoarder(MemoryBlobs):
    """A store that never removes a blob."""

    def remove(self, sha256: str) -> None:
        pass


def _bytes_not_waited_for(tree: Any) -> None:
    """Report that every host has all bytes, and replace the verdict `missing` by `taken`."""
    for state in tree.get("blobs", ()):
        state.update(complete=True)
    for answer in tree.get("answers", ()):
        if answer["verdict"] == "missing":
            answer.update(verdict="taken")


def by_disk(name: str, blobs: type[MemoryBlobs], profile: Profile) -> Break:
    return Break(name=name, tamper=partial(Tampering, blobs=blobs), profile=profile)


def _couriers(trouble: Trouble | None = None, spoils: int = 3) -> Profile:
    """Return a run of paglets that travel between hosts with files."""
    base = calm(3)
    load = replace(base.load, groups=0, counters=0, couriers=6, spoils=spoils)
    return replace(base, load=load, trouble=trouble or base.trouble, most_events=20_000)


def _groups(*plans: str, **more: Any) -> Profile:
    """Return a run of groups with code and inputs."""
    base = calm(3)
    counts: dict[str, Any] = {"groups": 3, "file_posts": 4, **more}
    return replace(base, load=replace(base.load, files=0.8, plans=plans, **counts))


def _leaving() -> Profile:
    """Return a run of jobs that leave with a file, and hooks that fail."""
    base = calm(3)
    load = replace(base.load, groups=2, most_jobs=6, counters=0, reruns=6, plans=(LEAVES,))
    return replace(base, load=load, trouble=Trouble(crashes=2, seconds=20.0))


def _homeless() -> Profile:
    """Return a run of jobs that leave with a file for a machine that is lost for good and forgotten."""
    base = calm(3)
    load = replace(base.load, groups=3, most_jobs=8, counters=0, stays=2, plans=(LEAVES,), lost_home=True)
    return replace(base, load=load, trouble=Trouble(departs=True, forgotten=True, seconds=12.0), lost_after=12.0)


_KEPT_FILE = "INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROPPED_FILE = "INTO artifacts SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE 0"

BYTE_BREAKS: tuple[Break, ...] = (
    by_sql(
        "files of a finished job that no hook took are dropped",
        rewritten(_KEPT_FILE, _DROPPED_FILE),
        profile=_leaving(),
    ),
    by_sql(
        "a job whose hook failed goes as if it had returned",
        rewritten("AND NOT EXISTS (SELECT 1 FROM failed_hooks f WHERE f.agent_id = r.agent_id)", ""),
        profile=_leaving(),
    ),
    by_sql(
        "files that were to go to a home which is forgotten are dropped",
        rewritten(_KEPT_FILE, _DROPPED_FILE),
        profile=_homeless(),
    ),
    by_disk("a blob is acknowledged before it is synced", Unsynced, _couriers(Trouble(crashes=6, seconds=20.0))),
    by_disk("a blob counts as whole before all of it is there", Early, _couriers()),
    by_disk("a blob goes on from where it was not confirmed", Boastful, _couriers(spoils=0)),
    by_disk("the hash of a blob is not looked at", Unhashed, _groups("success", spoils=12)),
    by_disk("files of blobs that nobody needs stay", Hoarder, _groups("artifact")),
    Break(
        name="what needs bytes goes without waiting for them",
        tamper=partial(changing_replies, "/v1/blobs/state", "/v1/transfers", change=_bytes_not_waited_for),
        profile=_couriers(),
    ),
    by_sql(
        "a blob goes though something needs it",
        rewritten("AND NOT EXISTS (SELECT 1 FROM blob_refs r", "OR NOT EXISTS (SELECT 1 FROM blob_refs r"),
        finds_none("SELECT 1 FROM blob_refs WHERE"),
        profile=_groups("artifact"),
    ),
    by_sql(
        "a blob goes though it was promised",
        preceded(
            "SELECT sha256 FROM blobs b WHERE sha256 > ?",
            "DELETE FROM blobs WHERE sha256 >= ?"
            " AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.sha256 = blobs.sha256)",
            0,
        ),
        profile=_couriers(),
    ),
    by_sql(
        "the source of a file goes before its paglet has arrived",
        preceded(
            "INSERT INTO handoffs",
            "INSERT INTO removals (path, size_bytes, mtime_ns, inode)"
            " SELECT source_path, size_bytes, source_mtime_ns, source_inode FROM files"
            " WHERE agent_id = ? AND mode = 'move' AND source_path IS NOT NULL",
            0,
        ),
        profile=_couriers(Trouble(weather=Weather(refused=0.5), seconds=20.0)),
    ),
    by_sql(
        "the source of a file that has moved stays",
        rewritten("AND mode = 'move' AND source_path", "AND mode = 'never' AND source_path"),
        profile=_couriers(),
    ),
    by_sql(
        "files do not travel",
        rewritten(
            "attempt, registered) VALUES (?, ?, ?, ?, ?, ?, ?)",
            "attempt, registered) SELECT ?, ?, ?, ?, ?, ?, ? WHERE 0",
        ),
        profile=_groups("success"),
    ),
    by_sql(
        "files are dropped at a checkpoint",
        finds_none("UPDATE files SET attempt = 0 WHERE"),
        profile=_groups("checkpoint"),
    ),
    by_sql(
        "the artifact of a post is dropped",
        rewritten("expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)", "expires_at) SELECT ?, ?, ?, ?, ?, ?, ? WHERE 0"),
        profile=_groups("artifact"),
    ),
    by_sql(
        "an artifact stays where its owner was",
        finds_none("DELETE FROM artifacts WHERE owner = ?"),
        profile=_couriers(),
    ),
    by_sql(
        "the artifact of a second report of an attempt is accepted too",
        second_outcome(),
        report_after_the_end(),
        profile=_groups("artifacts"),
    ),
    by_sql(
        "what a post carries is not kept for it",
        rewritten("INTO outbox_blobs VALUES (?, ?)", "INTO outbox_blobs SELECT ?, ? WHERE 0"),
        profile=_groups("artifact"),
    ),
    by_sql(
        "artifacts of reports that are not taken are kept",
        finds_none("DELETE FROM artifacts WHERE owner = ? AND artifact_id"),
        profile=_groups("artifact", cancels=12),
    ),
)
"""Bugs that each break one rule. The checks must find every one."""

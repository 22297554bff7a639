"""Deliberate breaks of the promises about bytes, made as those in `breaks`; some keep the bytes badly on the disk."""

from __future__ import annotations

from dataclasses import replace

from paglets.core.refs import BlobRef
from paglets.remote.exchange import Request, Response, reply
from paglets.testing.blobs import MemoryBlobs
from paglets.testing.simulation.breaks import Break, Rule
from paglets.testing.simulation.faults import Trouble
from paglets.testing.simulation.network import Weather
from paglets.testing.simulation.profile import Profile, calm
from paglets.testing.simulation.world import Tampering


class Unsynced(MemoryBlobs):
    """What is whole is not synced: a power cut takes it."""

    def finish(self, blob: BlobRef) -> None:
        super().finish(blob)
        self.disk.unsynced[blob.sha256] = None


class Early(MemoryBlobs):
    """What has begun to come counts as whole."""

    def size(self, sha256: str) -> int | None:
        whole = super().size(sha256)
        return whole if whole is not None or not self.partial(sha256) else self.partial(sha256)


class Unhashed(MemoryBlobs):
    """The bytes are not compared with their name."""

    def finish(self, blob: BlobRef) -> None:
        self.disk.whole[blob.sha256] = self.disk.partial.pop(blob.sha256, b"")


class Boastful(MemoryBlobs):
    """It says that more of a partial blob is there than is, so that who goes on from there leaves a gap."""

    def partial(self, sha256: str) -> int:
        there = super().partial(sha256)
        return there + 1 if there else 0


class Hoarder(MemoryBlobs):
    """Nothing is ever removed."""

    def remove(self, sha256: str) -> None:
        pass


def _bytes_not_waited_for() -> Tampering:
    """Every host is said to have all bytes, and who says that it lacks them to have taken what needs them."""

    def filter_reply(request: Request, response: Response) -> Response:
        if response.status >= 400 or request.target not in ("/v1/blobs/state", "/v1/transfers"):
            return response
        tree = response.json()
        for state in tree.get("blobs", ()):
            state.update(complete=True)
        for answer in tree.get("answers", ()):
            if answer["verdict"] == "missing":
                answer.update(verdict="taken")
        return reply(tree)

    return Tampering(filter_reply=filter_reply)


def _couriers(trouble: Trouble | None = None, spoils: int = 3) -> Profile:
    """Paglets that go from host to host with files."""
    base = calm(3)
    load = replace(base.load, groups=0, counters=0, couriers=6, spoils=spoils)
    return replace(base, load=load, trouble=trouble or base.trouble, most_events=20_000)


def _groups(*plans: str, **more: int) -> Profile:
    """Groups with code and inputs."""
    base = calm(3)
    counts = {"groups": 3, "file_posts": 4, **more}
    return replace(base, load=replace(base.load, files=0.8, plans=plans, **counts))


BYTE_BREAKS: tuple[Break, ...] = (
    Break(
        name="a blob is acknowledged before it is synced",
        tamper=lambda: Tampering(blobs=Unsynced),
        within_seeds=25,
        profile=_couriers(Trouble(crashes=6, seconds=20.0)),
    ),
    Break(
        name="a blob counts as whole before all of it is there",
        tamper=lambda: Tampering(blobs=Early),
        within_seeds=25,
        profile=_couriers(),
    ),
    Break(
        name="a blob goes on from where it was not confirmed",
        tamper=lambda: Tampering(blobs=Boastful),
        within_seeds=25,
        profile=_couriers(spoils=0),
    ),
    Break(
        name="the hash of a blob is not looked at",
        tamper=lambda: Tampering(blobs=Unhashed),
        within_seeds=25,
        profile=_groups("success", spoils=12),
    ),
    Break(
        name="files of blobs that nobody needs stay",
        tamper=lambda: Tampering(blobs=Hoarder),
        within_seeds=25,
        profile=_groups("artifact"),
    ),
    Break(
        name="what needs bytes goes without waiting for them",
        tamper=_bytes_not_waited_for,
        within_seeds=25,
        profile=_couriers(),
    ),
    Break(
        name="a blob goes though something needs it",
        rules=(
            Rule(pattern="AND NOT EXISTS (SELECT 1 FROM blob_refs r", by="OR NOT EXISTS (SELECT 1 FROM blob_refs r"),
            Rule(pattern="SELECT 1 FROM blob_refs WHERE", by="SELECT 1 FROM blob_refs WHERE 0 AND"),
        ),
        within_seeds=25,
        profile=_groups("artifact"),
    ),
    Break(
        name="a blob goes though it was promised",
        rules=(
            Rule(
                pattern="SELECT sha256 FROM blobs b WHERE sha256 > ?",
                by="SELECT sha256 FROM blobs b WHERE sha256 > ?",
                first="DELETE FROM blobs WHERE sha256 >= ?"
                " AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.sha256 = blobs.sha256)",
                first_args=(0,),
            ),
        ),
        within_seeds=25,
        profile=_couriers(),
    ),
    Break(
        name="the source of a file goes before its paglet has arrived",
        rules=(
            Rule(
                pattern="INSERT INTO handoffs",
                by="INSERT INTO handoffs",
                first="INSERT INTO removals (path, size_bytes, mtime_ns, inode)"
                " SELECT source_path, size_bytes, source_mtime_ns, source_inode FROM files"
                " WHERE agent_id = ? AND mode = 'move' AND source_path IS NOT NULL",
                first_args=(0,),
            ),
        ),
        within_seeds=25,
        profile=_couriers(Trouble(weather=Weather(refused=0.5), seconds=20.0)),
    ),
    Break(
        name="the source of a file that has moved stays",
        rules=(Rule(pattern="AND mode = 'move' AND source_path", by="AND mode = 'never' AND source_path"),),
        within_seeds=25,
        profile=_couriers(),
    ),
    Break(
        name="files do not travel",
        rules=(
            Rule(
                pattern="INTO files (agent_id, name, sha256, size_bytes, mode, attempt) VALUES (?, ?, ?, ?, ?, ?)",
                by="INTO files (agent_id, name, sha256, size_bytes, mode, attempt) SELECT ?, ?, ?, ?, ?, ? WHERE 0",
            ),
        ),
        within_seeds=25,
        profile=_groups("success"),
    ),
    Break(
        name="files are dropped at a checkpoint",
        rules=(Rule(pattern="UPDATE files SET attempt = 0 WHERE", by="UPDATE files SET attempt = 0 WHERE 0 AND"),),
        within_seeds=25,
        profile=_groups("checkpoint"),
    ),
    Break(
        name="the artifact of a post is dropped",
        rules=(
            Rule(
                pattern="INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?)",
                by="INTO artifacts SELECT ?, ?, ?, ?, ?, ?, ? WHERE 0",
            ),
        ),
        within_seeds=25,
        profile=_groups("artifact"),
    ),
    Break(
        name="an artifact stays where its owner was",
        rules=(
            Rule(
                pattern="DELETE FROM artifacts WHERE owner = ?",
                by="DELETE FROM artifacts WHERE 0 AND owner = ?",
            ),
        ),
        within_seeds=25,
        profile=_couriers(),
    ),
    Break(
        name="the artifact of a second report of an attempt is accepted too",
        rules=(
            Rule(pattern="AND attempt = ? AND outcome IS NULL", by="AND attempt = ?"),
            Rule(
                pattern="SELECT value FROM storage WHERE agent_id = ? AND key = ?",
                by="SELECT replace(value, '\"ended\":true', '\"ended\":false') FROM storage"
                " WHERE agent_id = ? AND key = ?",
            ),
        ),
        within_seeds=25,
        profile=_groups("artifacts"),
    ),
    Break(
        name="what a post carries is not kept for it",
        rules=(Rule(pattern="INTO outbox_blobs VALUES (?, ?)", by="INTO outbox_blobs SELECT ?, ? WHERE 0"),),
        within_seeds=25,
        profile=_groups("artifact"),
    ),
    Break(
        name="artifacts of reports that are not taken are kept",
        rules=(
            Rule(
                pattern="DELETE FROM artifacts WHERE owner = ? AND artifact_id",
                by="DELETE FROM artifacts WHERE 0 AND owner = ? AND artifact_id",
            ),
        ),
        within_seeds=25,
        profile=_groups("artifact", cancels=12),
    ),
)
"""Each breaks one rule; every one of them must be found."""

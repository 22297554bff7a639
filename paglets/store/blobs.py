"""The table of the blobs on this host, and the references that keep blobs."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.codec.strict_json import dumps
from paglets.core.refs import BlobRef
from paglets.store.db import Tx


def add(tx: Tx, blob: BlobRef, now: float) -> None:
    """Record a blob, whose bytes must have been synced to the disk."""
    tx.run("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", blob.sha256, blob.size_bytes, now)


def size(tx: Tx, sha256: str) -> int | None:
    """Return the size of a blob in bytes, or None if it is not on this host."""
    found = tx.value("SELECT size_bytes FROM blobs WHERE sha256 = ?", sha256)
    return None if found is None else int(found)


def missing(tx: Tx, blobs: Iterable[BlobRef]) -> list[BlobRef]:
    """Return the blobs that this host does not have, or has with another size."""
    return [blob for blob in blobs if size(tx, blob.sha256) != blob.size_bytes]


def total_bytes(tx: Tx) -> int:
    return int(tx.value("SELECT coalesce(sum(size_bytes), 0) FROM blobs"))


def is_needed(tx: Tx, sha256: str) -> bool:
    return tx.value("SELECT 1 FROM blob_refs WHERE sha256 = ? LIMIT 1", sha256) is not None


def unneeded(tx: Tx, after: str, most: int) -> list[str]:
    """Return the next hashes after `after`, sorted, of the blobs that have no references."""
    rows = tx.all(
        "SELECT sha256 FROM blobs b WHERE sha256 > ?"
        " AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.sha256 = b.sha256) ORDER BY sha256 LIMIT ?",
        after,
        most,
    )
    return [row["sha256"] for row in rows]


def forget(tx: Tx, sha256: str) -> bool:
    """Delete the row of an unreferenced blob. Return False if the blob has references or is not on this host."""
    return not is_needed(tx, sha256) and tx.run("DELETE FROM blobs WHERE sha256 = ?", sha256) == 1


def keep_for_group(tx: Tx, group_id: str, kept: Iterable[BlobRef]) -> None:
    rows = ((group_id, blob.sha256) for blob in kept)
    tx.run_many("INSERT OR IGNORE INTO group_blobs VALUES (?, ?)", rows)


def keep_for_post(tx: Tx, n: int, kept: Iterable[BlobRef]) -> None:
    tx.run_many("INSERT OR IGNORE INTO outbox_blobs VALUES (?, ?)", ((n, blob.sha256) for blob in kept))


def of_posts(tx: Tx, numbers: list[int]) -> dict[int, list[BlobRef]]:
    """Return the blobs of the artifacts of these posts, by the number of the post."""
    rows = tx.all(
        "SELECT x.n, b.sha256, b.size_bytes FROM json_each(?) CROSS JOIN outbox_blobs x ON x.n = json_each.value"
        " CROSS JOIN blobs b USING (sha256) ORDER BY x.n, b.sha256",
        dumps(numbers),
    )
    found: dict[int, list[BlobRef]] = {}
    for row in rows:
        found.setdefault(row["n"], []).append(BlobRef(sha256=row["sha256"], size_bytes=row["size_bytes"]))
    return found

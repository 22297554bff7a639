"""Which bytes are here, and what refers to them."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.core.refs import BlobRef
from paglets.store.db import Tx


def add(tx: Tx, blob: BlobRef, now: float) -> None:
    """The bytes are safe on the disk."""
    tx.run("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", blob.sha256, blob.size_bytes, now)


def size(tx: Tx, sha256: str) -> int | None:
    """The size of a blob that is here."""
    found = tx.value("SELECT size_bytes FROM blobs WHERE sha256 = ?", sha256)
    return None if found is None else int(found)


def missing(tx: Tx, blobs: Iterable[BlobRef]) -> list[BlobRef]:
    """Those that are not here, or with another size."""
    return [blob for blob in blobs if size(tx, blob.sha256) != blob.size_bytes]


def total_bytes(tx: Tx) -> int:
    return int(tx.value("SELECT coalesce(sum(size_bytes), 0) FROM blobs"))


def is_needed(tx: Tx, sha256: str) -> bool:
    return tx.value("SELECT 1 FROM blob_refs WHERE sha256 = ? LIMIT 1", sha256) is not None


def unneeded(tx: Tx, after: str, most: int) -> list[str]:
    """Blobs beyond `after` to which nothing refers, in order."""
    rows = tx.all(
        "SELECT sha256 FROM blobs b WHERE sha256 > ?"
        " AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.sha256 = b.sha256) ORDER BY sha256 LIMIT ?",
        after,
        most,
    )
    return [row["sha256"] for row in rows]


def forget(tx: Tx, sha256: str) -> bool:
    """Delete the row of a blob that nothing refers to; False where something does, or it is not here."""
    return not is_needed(tx, sha256) and tx.run("DELETE FROM blobs WHERE sha256 = ?", sha256) == 1


def keep_for_group(tx: Tx, group_id: str, kept: Iterable[BlobRef]) -> None:
    rows = ((group_id, blob.sha256) for blob in kept)
    tx.run_many("INSERT OR IGNORE INTO group_blobs VALUES (?, ?)", rows)


def keep_for_post(tx: Tx, n: int, kept: Iterable[BlobRef]) -> None:
    tx.run_many("INSERT OR IGNORE INTO outbox_blobs VALUES (?, ?)", ((n, blob.sha256) for blob in kept))

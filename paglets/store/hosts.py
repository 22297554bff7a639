"""The mesh as last heard of, and the addresses given by hand. Heartbeats and load are not stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import PagletsError, StoreDamaged
from paglets.store.db import Tx

JOINED = "mesh_joined"
FORGOTTEN = "mesh_forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHost:
    """`row` is `api.MeshHost` as JSON; the store does not look into it.

    `away_since`: when this host took the member for offline, epoch seconds; None: it was online.
    """

    store_id: str
    row: Any
    away_since: float | None = None


def load(tx: Tx) -> tuple[StoredHost, ...]:
    """Every stored member, by store id. Raises StoreDamaged where a row cannot be read."""
    rows = tx.all("SELECT store_id, row, away_since FROM members ORDER BY store_id")
    try:
        return tuple(StoredHost(store_id=r["store_id"], row=loads(r["row"]), away_since=r["away_since"]) for r in rows)
    except PagletsError as error:
        raise _damaged(error) from error


def load_others(tx: Tx) -> tuple[str, ...]:
    """The names of all stored members, else the URLs given by `--peer`: with whom this host is in a mesh.

    An old and a new store of one name are one. Raises StoreDamaged where a row cannot be read.
    """
    try:
        names = sorted({str(member.row["name"]) for member in load(tx)})
    except (KeyError, TypeError) as error:
        raise _damaged(error) from error
    return tuple(names) or load_peers(tx)


def _damaged(error: Exception) -> StoreDamaged:
    return StoreDamaged(f"the table of members cannot be read: {error}")


def save(tx: Tx, members: Iterable[StoredHost]) -> None:
    """Write these rows over what is stored of their stores."""
    tx.run_many(
        "INSERT INTO members (store_id, row, away_since) VALUES (?, ?, ?)"
        " ON CONFLICT (store_id) DO UPDATE SET row = excluded.row, away_since = excluded.away_since",
        ((member.store_id, dumps(member.row), member.away_since) for member in members),
    )


def drop(tx: Tx, store_ids: Iterable[str]) -> None:
    tx.run_many("DELETE FROM members WHERE store_id = ?", ((store_id,) for store_id in store_ids))


def load_peers(tx: Tx) -> tuple[str, ...]:
    """URLs given by `--peer`, now or at an earlier start."""
    return tuple(row["url"] for row in tx.all("SELECT url FROM peers ORDER BY url"))


def save_peers(tx: Tx, urls: Iterable[str], joined: Iterable[str]) -> None:
    """Remember these too. Of earlier ones only those of `joined` stay."""
    tx.run("DELETE FROM peers WHERE url NOT IN (SELECT value FROM json_each(?))", dumps(sorted(joined)))
    tx.run_many("INSERT INTO peers (url) VALUES (?) ON CONFLICT DO NOTHING", ((url,) for url in urls))


def load_forgotten(tx: Tx) -> dict[str, tuple[int, int, bool]]:
    """Hosts that were dropped, by store id: boot_count and heartbeat of the row that they had, and whether for good."""
    marks = loads(tx.value("SELECT value FROM meta WHERE key = ?", FORGOTTEN) or "{}")
    return {store_id: (boot, heartbeat, for_good) for store_id, (boot, heartbeat, for_good) in marks.items()}


def save_forgotten(tx: Tx, marks: Mapping[str, tuple[int, int, bool]]) -> None:
    _save_meta(tx, FORGOTTEN, dumps({store_id: list(mark) for store_id, mark in marks.items()}))


def load_joined(tx: Tx) -> int:
    """As the how-manyeth host this store came to its mesh; 0: not yet."""
    return int(tx.value("SELECT value FROM meta WHERE key = ?", JOINED) or 0)


def save_joined(tx: Tx, joined: int) -> None:
    _save_meta(tx, JOINED, str(joined))


def _save_meta(tx: Tx, key: str, value: str) -> None:
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
    )

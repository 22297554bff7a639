"""The stored membership: known hosts, marks of removed hosts, this host's rank, and the URLs given by `--peer`.

A change of only the heartbeat or the load of a host is not stored.
"""

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
    """A row of the table `hosts`. `row` is the JSON of an `api.hosts.MeshHost`, which the store does not interpret.

    `offline_since`: the epoch seconds when this host marked the other one as offline, or None if it was online.
    """

    store_id: str
    row: Any
    offline_since: float | None = None


def load(tx: Tx) -> tuple[StoredHost, ...]:
    """Return all stored hosts, sorted by store id. Raises StoreDamaged if a row cannot be read."""
    rows = tx.all("SELECT store_id, row, offline_since FROM hosts ORDER BY store_id")
    try:
        return tuple(
            StoredHost(store_id=r["store_id"], row=loads(r["row"]), offline_since=r["offline_since"]) for r in rows
        )
    except PagletsError as error:
        raise _damaged(error) from error


def load_others(tx: Tx) -> tuple[str, ...]:
    """Return the names of all stored hosts. If there is none, return the stored URLs of `--peer`.

    The name of a host that has had several stores is returned once. Raises StoreDamaged if a row cannot be read.
    """
    try:
        names = sorted({str(host.row["name"]) for host in load(tx)})
    except (KeyError, TypeError) as error:
        raise _damaged(error) from error
    return tuple(names) or load_peers(tx)


def _damaged(error: Exception) -> StoreDamaged:
    return StoreDamaged(f"the table of hosts cannot be read: {error}")


def save(tx: Tx, hosts: Iterable[StoredHost]) -> None:
    """Insert the rows of these hosts, and replace the rows with the same store ids."""
    tx.run_many(
        "INSERT INTO hosts (store_id, row, offline_since) VALUES (?, ?, ?)"
        " ON CONFLICT (store_id) DO UPDATE SET row = excluded.row, offline_since = excluded.offline_since",
        ((host.store_id, dumps(host.row), host.offline_since) for host in hosts),
    )


def drop(tx: Tx, store_ids: Iterable[str]) -> None:
    tx.run_many("DELETE FROM hosts WHERE store_id = ?", ((store_id,) for store_id in store_ids))


def load_peers(tx: Tx) -> tuple[str, ...]:
    """Return the URLs given by `--peer` at this start or an earlier one."""
    return tuple(row["url"] for row in tx.all("SELECT url FROM peers ORDER BY url"))


def save_peers(tx: Tx, urls: Iterable[str], joined: Iterable[str]) -> None:
    """Store the URLs given by `--peer`. Delete all other stored URLs, except those of known hosts (`joined`)."""
    tx.run("DELETE FROM peers WHERE url NOT IN (SELECT value FROM json_each(?))", dumps(sorted(joined)))
    tx.run_many("INSERT INTO peers (url) VALUES (?) ON CONFLICT DO NOTHING", ((url,) for url in urls))


def load_forgotten(tx: Tx) -> dict[str, tuple[int, int, bool]]:
    """Return (boot_count, heartbeat, for_good) of each forgotten host, by store id.

    `boot_count` and `heartbeat` are from the last row of the host. `for_good` is True if a user removed the host.
    """
    marks = loads(tx.value("SELECT value FROM meta WHERE key = ?", FORGOTTEN) or "{}")
    return {store_id: (boot, heartbeat, for_good) for store_id, (boot, heartbeat, for_good) in marks.items()}


def save_forgotten(tx: Tx, marks: Mapping[str, tuple[int, int, bool]]) -> None:
    _save_meta(tx, FORGOTTEN, dumps({store_id: list(mark) for store_id, mark in marks.items()}))


def load_joined(tx: Tx) -> int:
    """Return the rank of this host in the order in which hosts joined the mesh, from 1; 0 if it has not joined."""
    return int(tx.value("SELECT value FROM meta WHERE key = ?", JOINED) or 0)


def save_joined(tx: Tx, joined: int) -> None:
    _save_meta(tx, JOINED, str(joined))


def _save_meta(tx: Tx, key: str, value: str) -> None:
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
    )

"""The stored membership: hosts, peers, and marks of removed hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.core.errors import StoreDamaged
from paglets.store import hosts
from paglets.store.db import Store, open_store
from paglets.store.hosts import StoredHost


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path / "paglets.db", lambda error: None)
    yield made
    made.close()


def test_the_others_are_the_stored_hosts_by_name_each_once_else_the_peers(store: Store) -> None:
    assert store.read(hosts.load_others) == ()
    store.write(lambda tx: hosts.save_peers(tx, ["http://w1:8765"], []))
    assert store.read(hosts.load_others) == ("http://w1:8765",)
    rows = [StoredHost(store_id=store_id, row={"name": name}) for store_id, name in (("a", "w2"), ("b", "w1"))]
    store.write(lambda tx: hosts.save(tx, [*rows, StoredHost(store_id="of-before", row={"name": "w1"})]))
    assert store.read(hosts.load_others) == ("w1", "w2")


@pytest.mark.parametrize("row", ['{"name": "w1', "{}", "[]"])
def test_others_that_cannot_be_read_are_damage(store: Store, row: str) -> None:
    store.write(lambda tx: tx.run("INSERT INTO hosts (store_id, row) VALUES ('s', ?)", row))
    with pytest.raises(StoreDamaged, match="the table of hosts cannot be read"):
        store.read(hosts.load_others)

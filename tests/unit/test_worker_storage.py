"""The storage of a paglet in its process: uncommitted changes on top of the host's rows."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.errors import Invalid
from paglets.worker.child.storage import PAGE_ENTRIES, ChildStorage
from paglets.worker.child.unit_of_work import UnitOfWork
from paglets.worker.protocol import Commit, StorageGet, StorageScan


class Rows:
    """The rows of the host."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows
        self.scope = UnitOfWork()
        self.storage = ChildStorage(self.request, lambda: self.scope)

    def request(self, operation: str, args: Any) -> Any:
        if isinstance(args, StorageGet):
            return {"found": args.key in self.rows, "value": self.rows.get(args.key)}
        if isinstance(args, StorageScan):
            keys = sorted(key for key in self.rows if key.startswith(args.prefix) and key > args.after)
            return {"entries": [[key, self.rows[key]] for key in keys[: args.limit]]}
        if isinstance(args, Commit):
            self.rows |= args.changes.storage_set
            for key in args.changes.storage_deleted:
                del self.rows[key]
            return None
        return {"keys": sorted(self.rows)}


def test_a_scan_goes_on_behind_what_was_deleted_and_a_page() -> None:
    host = Rows({f"k{number:05}": number for number in range(3 * PAGE_ENTRIES)})
    storage = host.storage
    for number in range(PAGE_ENTRIES + 10):
        del storage[f"k{number:05}"]
    storage["k02000x"] = "new"
    storage["z"] = "behind"
    found = storage.scan("k", limit=PAGE_ENTRIES)
    assert len(found) == PAGE_ENTRIES
    assert found[0] == ("k01010", 1010)
    assert ("k02000x", "new") in found
    rest = storage.scan("k", after=found[-1][0], limit=10 * PAGE_ENTRIES)
    assert len(found) + len(rest) == 2 * PAGE_ENTRIES - 10 + 1
    assert [key for key, _ in found + rest] == sorted(key for key, _ in found + rest)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_discarded_is_not_read(at_once: bool) -> None:
    # The class is not installed here. An unused value must not fail the handler.
    host = Rows({"a": {"$object": {"class": "needs_torch:Cfg", "fields": {}}}, "b": 1})
    host.scope = UnitOfWork(at_once=at_once)
    host.storage.discard("a")
    assert list(host.storage) == ["b"]
    assert ("a" in host.rows) is not at_once


def test_a_scan_for_nothing_gives_nothing() -> None:
    storage = Rows({"a": 1}).storage
    assert storage.scan("", limit=0) == []
    assert storage.scan("b") == []


def test_it_is_a_mapping_over_both() -> None:
    host = Rows({"a": 1, "b": 2})
    storage = host.storage
    storage["c"] = (1, b"x")
    del storage["a"]
    assert dict(storage) == {"b": 2, "c": (1, b"x")}
    assert "a" not in storage
    assert len(storage) == 2
    assert storage.pop("b") == 2
    with pytest.raises(KeyError):
        del storage["a"]
    assert host.rows == {"a": 1, "b": 2}


def test_in_a_long_entry_each_change_goes_out_at_once() -> None:
    host = Rows({"a": 1})
    host.scope = UnitOfWork(at_once=True)
    host.storage["b"] = {1}
    del host.storage["a"]
    assert host.rows == {"b": {"$set": [1]}}


@pytest.mark.parametrize("key", ["", "x" * 513, 5, None])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    storage = Rows({}).storage
    with pytest.raises(Invalid):
        storage[key] = 1
    with pytest.raises(Invalid):
        storage[key]


def test_a_value_that_cannot_travel_is_refused_where_it_is_set() -> None:
    with pytest.raises(Invalid, match="storage"):
        Rows({}).storage["a"] = object()

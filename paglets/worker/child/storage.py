"""The storage of a paglet in its process: a map of the entries on the host, overlaid with uncommitted changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from paglets.codec.tagged_json import decode, encode
from paglets.core.context import Storage
from paglets.worker.child.unit_of_work import UnitOfWork, check_key
from paglets.worker.protocol import Changes, Commit, NoArguments, StorageGet, StorageScan

PAGE_ENTRIES = 1000
"""Maximum number of entries in one request, because the reply must fit into one frame."""

Request = Callable[[str, Any], Any]


class ChildStorage(Storage):
    """The storage of a paglet, as its process sees it. `unit` returns the unit of work of the calling thread."""

    def __init__(self, request: Request, unit: Callable[[], UnitOfWork]) -> None:
        self._request = request
        self._unit = unit

    def __getitem__(self, key: str) -> Any:
        unit = self._unit()
        if check_key(key) in unit.storage:
            return decode(unit.storage[key], keep_missing=True)
        if key in unit.deleted:
            raise KeyError(key)
        answer = self._request("storage_get", StorageGet(key=key))
        if not answer["found"]:
            raise KeyError(key)
        return decode(answer["value"], keep_missing=True)

    def __setitem__(self, key: str, value: Any) -> None:
        unit, tree = self._unit(), encode(value, f"storage[{check_key(key)!r}]")
        if unit.at_once:
            self._request("commit", Commit(changes=Changes(storage_set={key: tree})))
        else:
            unit.put(key, tree)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.discard(key)

    def discard(self, key: str) -> None:
        unit = self._unit()
        if unit.at_once:
            self._request("commit", Commit(changes=Changes(storage_deleted=(check_key(key),))))
        else:
            unit.delete(check_key(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        unit, limit = self._unit(), max(0, limit)
        entries: dict[str, Any] = {}
        size, last = min(limit, PAGE_ENTRIES), after
        while len(entries) < limit:
            page = self._request("storage_scan", StorageScan(prefix=prefix, after=last, limit=size))["entries"]
            entries |= {key: tree for key, tree in page if key not in unit.deleted}
            if len(page) < size:
                break
            last = page[-1][0]
        # Uncommitted entries may sort after the last page that was read. Then at least `limit` entries precede them, so
        # that they are cut off below.
        entries |= {key: tree for key, tree in unit.storage.items() if key.startswith(prefix) and key > after}
        return [(key, decode(entries[key], keep_missing=True)) for key in sorted(entries)[:limit]]

    def _keys(self) -> list[str]:
        unit = self._unit()
        stored = self._request("storage_keys", NoArguments())["keys"]
        return sorted((set(stored) - unit.deleted) | unit.storage.keys())

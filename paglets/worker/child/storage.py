"""A paglet's durable map, seen from its process: the host's rows under what was changed and not yet committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from paglets.codec.tagged_json import decode, encode
from paglets.core.context import Storage
from paglets.worker.child.unit_of_work import UnitOfWork, check_key
from paglets.worker.protocol import Changes, Commit, Nothing, StorageGet, StorageScan

PAGE_ENTRIES = 1000
"""Asked for in one request; the reply is one frame."""

Request = Callable[[str, Any], Any]


class ChildStorage(Storage):
    """`scope` gives the scope of the calling thread."""

    def __init__(self, request: Request, scope: Callable[[], UnitOfWork]) -> None:
        self._request = request
        self._scope = scope

    def __getitem__(self, key: str) -> Any:
        scope = self._scope()
        if check_key(key) in scope.storage:
            return decode(scope.storage[key], keep_missing=True)
        if key in scope.deleted:
            raise KeyError(key)
        answer = self._request("storage_get", StorageGet(key=key))
        if not answer["found"]:
            raise KeyError(key)
        return decode(answer["value"], keep_missing=True)

    def __setitem__(self, key: str, value: Any) -> None:
        scope, tree = self._scope(), encode(value, f"storage[{check_key(key)!r}]")
        if scope.at_once:
            self._request("commit", Commit(changes=Changes(storage_set={key: tree})))
        else:
            scope.put(key, tree)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.discard(key)

    def discard(self, key: str) -> None:
        scope = self._scope()
        if scope.at_once:
            self._request("commit", Commit(changes=Changes(storage_deleted=(check_key(key),))))
        else:
            scope.delete(check_key(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        scope, limit = self._scope(), max(0, limit)
        entries: dict[str, Any] = {}
        size, last = min(limit, PAGE_ENTRIES), after
        while len(entries) < limit:
            page = self._request("storage_scan", StorageScan(prefix=prefix, after=last, limit=size))["entries"]
            entries |= {key: tree for key, tree in page if key not in scope.deleted}
            if len(page) < size:
                break
            last = page[-1][0]
        # What lies behind the last page is cut off again, because enough was found before it.
        entries |= {key: tree for key, tree in scope.storage.items() if key.startswith(prefix) and key > after}
        return [(key, decode(entries[key], keep_missing=True)) for key in sorted(entries)[:limit]]

    def _keys(self) -> list[str]:
        scope = self._scope()
        stored = self._request("storage_keys", Nothing())["keys"]
        return sorted((set(stored) - scope.deleted) | scope.storage.keys())

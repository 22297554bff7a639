"""The storage of a paglet whose handlers run inside its host, in the open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from paglets.codec.strict_json import dumps, loads
from paglets.core.context import Storage
from paglets.groups.tallies import Tally
from paglets.store import paglets, tallies
from paglets.store.db import Tx


class InHostStorage(Storage):
    """The storage of a paglet, read and written in the open transaction. Its values are tagged JSON.

    After `hold`, changes stay in memory until `flush`, which stores them with two statements.
    """

    def __init__(self, tx: Tx, agent_id: str) -> None:
        self._tx = tx
        self._agent_id = agent_id
        self._is_holding = False
        self._read: dict[str, str | None] = {}
        self._held: dict[str, str | None] = {}

    def hold(self, keys: Iterable[str]) -> None:
        """Hold changes from now on, and read the entries with these keys, which handlers are about to read."""
        self._is_holding = True
        self._read = paglets.storage_texts(self._tx, self._agent_id, keys)

    def flush(self) -> None:
        """Store the held changes."""
        if self._held:
            paglets.storage_change(self._tx, self._agent_id, self._held)
            self._read = {key: text for key, text in self._read.items() if key not in self._held}
            self._held = {}

    def _change(self, key: str, text: str | None) -> None:
        if self._is_holding:
            self._held[key] = text
        else:
            paglets.storage_change(self._tx, self._agent_id, {key: text})

    def __getitem__(self, key: str) -> Any:
        known = self._held if key in self._held else self._read
        if key not in known:
            found, value = paglets.storage_get(self._tx, self._agent_id, key)
            if found:
                return value
        elif (text := known[key]) is not None:
            return loads(text)
        raise KeyError(key)

    def text(self, key: str) -> str | None:
        """Return the JSON text of an entry that `hold` has read, or None if there is no such entry."""
        return self._held[key] if key in self._held else self._read[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._change(key, dumps(value))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._change(key, None)

    def discard(self, key: str) -> None:
        self._change(key, None)

    def __iter__(self) -> Iterator[str]:
        after = ""
        while page := self.scan("", after):
            yield from (key for key, _ in page)
            after = page[-1][0]

    def __len__(self) -> int:
        self.flush()
        return paglets.storage_count(self._tx, self._agent_id)

    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        self.flush()
        return paglets.storage_scan(self._tx, self._agent_id, prefix, after, limit)

    def keys_from(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return the keys that `scan` would return, without reading the values."""
        self.flush()
        return paglets.storage_keys(self._tx, self._agent_id, prefix, after, limit)

    def tally(self, prefix: str, fields: Sequence[str], unless: str, most: int) -> list[Tally]:
        """Count rows inside SQLite (see `groups.tallies`)."""
        self.flush()
        return tallies.storage_tally(self._tx, self._agent_id, prefix, fields, unless, most)

"""Tallies of the rows in a paglet's storage, counted by SQLite. See `paglets.groups.tallies`."""

from __future__ import annotations

from collections.abc import Sequence

from paglets.codec.strict_json import loads
from paglets.groups.tallies import Tally
from paglets.store.db import Tx


def storage_tally(tx: Tx, agent_id: str, prefix: str, fields: Sequence[str], unless: str, most: int) -> list[Tally]:
    """Count the rows of a paglet's storage as `groups.tallies.TallyingStorage.tally` describes. Decode only the result.

    `fields` has at least two names, because `json_extract` then returns their values as a JSON array.
    """
    rows = tx.all(
        f"SELECT json_extract(value{', ?' * len(fields)}) AS fields, count(*) AS count, min(key) AS first FROM storage"
        " WHERE agent_id = ? AND key >= ? AND key < ? AND NOT coalesce(json_extract(value, ?), 0)"
        " GROUP BY 1 ORDER BY 2 DESC, 3 LIMIT ?",
        *(f"$.{name}" for name in fields),
        agent_id,
        prefix,
        prefix + "\U0010ffff",
        f"$.{unless}",
        most,
    )
    return [
        Tally(values=tuple(loads(row["fields"])), count=row["count"], first=row["first"].removeprefix(prefix))
        for row in rows
    ]

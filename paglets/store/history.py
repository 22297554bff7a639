"""The history of ended attempts, which is kept for display and limited to the newest."""

from __future__ import annotations

from typing import Any

from paglets.codec.strict_json import dumps
from paglets.core.record import to_json
from paglets.store.db import Tx
from paglets.store.queue import JobRow


def record(tx: Tx, row: JobRow, record: dict[str, Any], now: float, keep: int = 10_000) -> None:
    """Add an ended attempt to the history, and keep only the newest `keep` rows."""
    new = tx.insert(
        "INSERT INTO history (agent_id, group_id, job_key, record, ended_at) VALUES (?, ?, ?, ?, ?)",
        row.agent_id,
        row.group_id,
        row.job_key,
        dumps(to_json(record)),
        now,
    )
    tx.run("DELETE FROM history WHERE id <= ?", new - keep)

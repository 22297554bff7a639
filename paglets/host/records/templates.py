"""The templates of this host: the rows of their processes, and the import that the attempts of a job can share."""

from __future__ import annotations

from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.host.records.run_repository import LaunchPaths, code_of
from paglets.slots.model import SlotRequest
from paglets.store.db import Tx
from paglets.worker.launch import TemplateSource


def source(tx: Tx, agent_id: str, paths: LaunchPaths) -> TemplateSource | None:
    """Return the import of the template for the attempts of a job; None if the job must not use a template.

    A job without a bundle uses none: its modules come from folders of the host, which may change at any time. A job
    with a GPU uses none, because the libraries for GPUs do not survive a fork.
    """
    row = tx.one("SELECT class_name, request FROM paglets JOIN requests USING (agent_id) WHERE agent_id = ?", agent_id)
    code = code_of(tx, agent_id, paths)
    if row is None or code is None:
        return None
    request = from_json(SlotRequest, loads(row["request"]))
    if not request.preload or request.resources.gpus:
        return None
    return TemplateSource(module=row["class_name"].partition(":")[0], code=code, code_paths=paths.code_paths)


def add(tx: Tx, token: str, pid: int, start_time: float) -> None:
    """Store the process of a template."""
    tx.run("INSERT OR REPLACE INTO templates VALUES (?, ?, ?)", token, pid, start_time)


def remove(tx: Tx, token: str) -> None:
    """Remove a template whose processes have ended."""
    tx.run("DELETE FROM templates WHERE token = ?", token)


def pids(tx: Tx) -> tuple[int, ...]:
    """Return the pids of the templates of this host."""
    return tuple(row["pid"] for row in tx.all("SELECT pid FROM templates ORDER BY token"))

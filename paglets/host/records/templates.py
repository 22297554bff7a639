"""The templates and warm workers of this host: their rows, and the attempts that can share one."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import BlobRef
from paglets.host.records.run_repository import LaunchPaths, code_at
from paglets.store import paglets, queue
from paglets.store.db import Tx
from paglets.worker.launch import HAS_WORKERS, TemplateSource, WorkerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """The template and the key of the warm worker that an attempt shares with others. None: it shares none.

    `worker` does not name cores yet. `alone`: True if a zygote of its own forks the attempt.
    """

    template: TemplateSource | None = None
    worker: WorkerKey | None = None
    alone: bool = False


def sharing(tx: Tx, agent_id: str, paths: LaunchPaths) -> Sharing:
    """Return what the next attempt of a job shares with others. After a zygote death, it is `alone`.

    A job without a bundle shares nothing: its modules come from folders of the host, which may change at any time. A
    job with a GPU shares nothing, because libraries for GPUs do not survive a fork, and keep GPU memory until their
    process ends.
    """
    row = tx.one(
        "SELECT class_name, bundle, bundle_bytes, launcher_deaths, request FROM paglets JOIN requests USING (agent_id)"
        " WHERE agent_id = ?",
        agent_id,
    )
    if row is None or row["launcher_deaths"]:
        return Sharing(alone=row is not None)
    request = queue.request_of(row["request"])
    if row["bundle"] is None or request.resources.gpus:
        return Sharing()
    code = code_at(BlobRef(sha256=row["bundle"], size_bytes=row["bundle_bytes"]), paths)
    module = row["class_name"].partition(":")[0]
    template = TemplateSource(module=module, code=code, code_paths=paths.code_paths)
    worker = WorkerKey(bundle=code.bundle.sha256, module=module, resources=request.resources)
    return Sharing(
        template=template if request.preload else None,
        worker=worker if HAS_WORKERS and request.isolation == "worker" else None,
    )


def suspect(tx: Tx, agent_id: str) -> None:
    """Let the next attempt of a job run under a zygote of its own, if the job asks for a warm worker.

    The host calls this if its previous start ended during a run of the job. Any job of the worker may be the cause, so
    the next attempt of each runs alone.
    """
    job = queue.job(tx, agent_id)
    if job is not None and job.request.isolation == "worker":
        paglets.set_launcher_deaths(tx, agent_id, max(1, paglets.launcher_deaths(tx, agent_id)))


def add(tx: Tx, token: str, pid: int, start_time: float) -> None:
    """Store the process of a template or a warm worker."""
    tx.run("INSERT OR REPLACE INTO templates VALUES (?, ?, ?)", token, pid, start_time)


def remove(tx: Tx, token: str) -> None:
    """Remove the row of a template or a warm worker that has ended."""
    tx.run("DELETE FROM templates WHERE token = ?", token)


def pids(tx: Tx) -> tuple[int, ...]:
    """Return the pids of the templates of this host, without those of warm workers."""
    return tuple(row["pid"] for row in tx.all("SELECT pid FROM templates WHERE token LIKE 'template-%' ORDER BY token"))

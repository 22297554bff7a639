"""The templates and warm workers of this host: their rows, and the keys of the attempts that can share one."""

from __future__ import annotations

from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.host.records.run_repository import LaunchPaths, code_of
from paglets.slots.model import SlotRequest
from paglets.store import paglets, queue
from paglets.store.db import Tx
from paglets.worker.launch import TemplateSource, WorkerKey


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


def worker_key(tx: Tx, agent_id: str, paths: LaunchPaths, cores: tuple[int, ...]) -> WorkerKey | None:
    """Return the key of the warm worker for the attempts of a job; None if each has a process of its own.

    An attempt with a GPU has its own process, because libraries for GPUs keep GPU memory until their process ends.
    """
    job, name = queue.job(tx, agent_id), tx.value("SELECT class_name FROM paglets WHERE agent_id = ?", agent_id)
    code = code_of(tx, agent_id, paths)
    if job is None or code is None or job.request.isolation != "worker" or job.request.resources.gpus:
        return None
    return WorkerKey(
        bundle=code.bundle.sha256, module=name.partition(":")[0], resources=job.request.resources, cores=cores
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
    """Remove the row of a template or a warm worker whose processes have ended."""
    tx.run("DELETE FROM templates WHERE token = ?", token)


def pids(tx: Tx) -> tuple[int, ...]:
    """Return the pids of the templates of this host, without those of warm workers."""
    return tuple(row["pid"] for row in tx.all("SELECT pid FROM templates WHERE token LIKE 'template-%' ORDER BY token"))

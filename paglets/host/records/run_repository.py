"""The run repository: the runs of paglets, in memory and as rows of the table `runs`.

A run is a process of a paglet, or a job of a warm worker.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from paglets.api.slots import Usage
from paglets.codec.strict_json import loads
from paglets.core.errors import BadRequest, Fenced, StoreTransient
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from paglets.core.text import duration_text
from paglets.host.records import exits, outcomes
from paglets.host.records.delivery import Delivery
from paglets.host.records.lifecycle import hook_failed
from paglets.host.records.outcomes import Attempt
from paglets.store import files, lines, paglets, queue, residence
from paglets.store.db import Tx
from paglets.worker.launch import ProcessExit, TemplateSource, WorkerKey
from paglets.worker.protocol import LONG_ENTRIES, OPERATIONS, Go, GoCode, GoFile, Stamp

Limit = Literal["", "timeout", "hook_timeout", "report_grace"]


@dataclass(eq=False, kw_only=True)
class Run:
    """A run of a paglet, from launch to end: a process, or a job of a warm worker. Only the runner uses it.

    `blocked_by` is the reason why the host cannot store a file of the process now. `start_error` is the reason why the
    process could not use a file of the host at its start. `limit_seconds` is the `hook_timeout_seconds` of the
    class. The host stops the process `timeout_seconds` after `started_at`; 0 means no limit.
    `finished_at` is the time when the process reported or its code returned. `stop_reason` is the reason why the host
    stopped the process. `may_stay` is True if the process may wait for further messages. `idle_since` is the time when
    it began to wait for one. The process gets no message after `leaves_at`, because an action of its paglet is due.
    `is_unstored` is True while the end of the code, for which the process does not wait, is not stored.
    `template`, `worker` and `alone` are as in `templates.Sharing`. `line` is the token of the first run of its line
    ("": it is in no line). `is_ahead` is True until the run before it has passed on its lease.
    """

    stamp: Stamp
    entry: str
    timeout_seconds: float = 0.0
    limit_seconds: float = 0.0
    started_at: float = 0.0
    live: bool = False
    may_stay: bool = False
    idle_since: float | None = None
    leaves_at: float | None = None
    finishing: bool = False
    done: bool = False
    is_reporting: bool = False
    reported: bool = False
    finished_at: float | None = None
    stop_reason: str = ""
    blocked_by: str = ""
    blocked_at: float = 0.0
    start_error: str = ""
    is_unstored: bool = False
    work_dir: str = ""
    delivered: tuple[str, Delivery] | None = None
    usage: Usage = field(default_factory=Usage)
    usage_saved: float = 0.0
    cores: tuple[int, ...] = ()
    template: TemplateSource | None = None
    worker: WorkerKey | None = None
    alone: bool = False
    line: str = ""
    is_ahead: bool = False
    go_sent: bool = False
    unstored: tuple[int, float] | None = None

    @property
    def agent_id(self) -> str:
        return self.stamp.agent_id

    @property
    def takes_messages(self) -> bool:
        return self.live and not self.finishing and not self.done and (self.entry in (*LONG_ENTRIES, "message"))


def exceeded_limit(run: Run, now: float, report_grace_seconds: float) -> Limit:
    """Return the limit that this process has exceeded, or "" if none. `now` is in seconds of the monotonic clock."""
    if run.stop_reason or run.is_ahead:
        return ""
    if run.finished_at is not None and now - run.finished_at > report_grace_seconds:
        return "report_grace"
    if run.timeout_seconds and now - run.started_at > run.timeout_seconds:
        return "timeout" if run.entry == "attempt" else "hook_timeout"
    return ""


def limit_text(run: Run, limit: Limit, report_grace_seconds: float) -> str:
    """Return a text that says why a process that exceeded `limit` was stopped."""
    if limit == "report_grace":
        return f"the process did not end within {duration_text(report_grace_seconds)} of its report, and was stopped"
    return f"the process ran longer than {limit}_seconds = {run.limit_seconds:g}, and was stopped"


def parse_operation(frame: dict[str, Any], stamp: Stamp) -> tuple[str, Any]:
    """Return the name and the arguments of the operation in a frame.

    Raises BadRequest for an unknown operation, Fenced if the frame has the stamp of another run, and Invalid for
    invalid arguments.
    """
    name = frame.get("op")
    if name not in OPERATIONS or not isinstance(name, str):
        raise BadRequest(f"unknown operation {str(name)[:60]!r}")
    if from_json(Stamp, frame.get("stamp"), "stamp") != stamp:
        raise Fenced("this run has ended, or a newer one replaced it")
    return name, from_json(OPERATIONS[name], frame.get("args"), name)


def start_run(tx: Tx, agent_id: str, entry: str, token: str, now: float) -> Stamp | None:
    """Insert the row of a new run and return its stamp, or None if the paglet is not on this host or already runs."""
    row = residence.find(tx, agent_id)
    if row is None or row.status != "here":
        return None
    if tx.value("SELECT 1 FROM runs WHERE agent_id = ?", agent_id) is not None:
        return None
    job = queue.job(tx, agent_id)
    generation, attempt = (job.generation, job.attempt) if job is not None else (1, 0)
    queue.start_run(tx, agent_id, token, entry, row.epoch, generation, attempt, now)
    return Stamp(agent_id=agent_id, epoch=row.epoch, generation=generation, attempt=attempt, token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPaths:
    """The host and the paths that are passed to each process of a paglet.

    `code_paths` are the configured folders with code. `code_folder` holds unpacked bundles. `blob_path` returns the
    path of the blob with the given SHA-256.
    """

    own: HostRef
    code_paths: tuple[str, ...]
    code_folder: str
    blob_path: Callable[[str], str]


def set_process(tx: Tx, token: str, pid: int, start_time: float) -> bool:
    """Store the process of a run. Return False if the run has ended."""
    return bool(tx.run("UPDATE runs SET pid = ?, start_time = ? WHERE token = ?", pid, start_time, token))


def go_frame(tx: Tx, run: Run, ground: LaunchPaths) -> Go | None:
    """Return the `go` frame to send to the process of a run. Return None if the paglet has ended.

    Before the frame is sent, the process must be stored: in the row of the run, or of the warm worker.
    """
    row = tx.one("SELECT * FROM paglets JOIN paglet_states USING (agent_id) WHERE agent_id = ?", run.agent_id)
    if row is None:
        return None
    residence.mark_scratch_clean(tx, run.agent_id)
    request = tx.one("SELECT * FROM requests JOIN job_states USING (agent_id) WHERE agent_id = ?", run.agent_id)
    state, home = row["state"], from_json(HostRef, loads(row["home"]))
    system: dict[str, Any] = {"home_host_name": home.name, "home_host_url": home.url}
    if request is not None:
        system |= {
            "group_id": request["group_id"] or "",
            "job_key": request["job_key"],
            "generation": request["generation"],
            "attempt": run.stamp.attempt,
            "compute_status": "RUNNING" if run.entry == "attempt" else request["status"],
            "compute_fresh": request["checkpoint"] is None,
        }
        if run.entry == "attempt":
            state = request["checkpoint"] or request["submitted_state"]
            files.begin_attempt(tx, run.agent_id)
    return Go(
        stamp=run.stamp,
        class_name=row["class_name"],
        kind=row["kind"],
        entry=run.entry,  # type: ignore[arg-type]
        state=loads(state),
        system=system,
        host=ground.own,
        work_dir=run.work_dir,
        code_paths=ground.code_paths,
        code=code_of(tx, run.agent_id, ground),
        files=tuple(_go_file(file, source, ground) for file, source in files.with_sources(tx, run.agent_id)),
        collector=_collector(request),
        came_from=_came_from(tx, run),
        memory_bytes=0 if request is None else queue.request_of(request["request"]).resources.memory_bytes,
    )


def started(tx: Tx, run: Run, pid: int, start_time: float, ground: LaunchPaths) -> Go | None:
    """Store the process of a run, and return the `go` frame to send to it. Return None if the run has ended."""
    return go_frame(tx, run, ground) if set_process(tx, run.stamp.token, pid, start_time) else None


def _came_from(tx: Tx, run: Run) -> str:
    """Return the name of the host that a paglet arrived from, or "" if the entry is not its arrival."""
    row = residence.find(tx, run.agent_id) if run.entry == "arrival" else None
    return "" if row is None or row.peer is None else row.peer.name


def _collector(request: sqlite3.Row | None) -> ProxyRef | None:
    if request is None or request["collector"] is None:
        return None
    return from_json(ProxyRef, loads(request["collector"]))


def _go_file(file: FileRef, source: files.RegisteredSource | None, ground: LaunchPaths) -> GoFile:
    path = ground.blob_path(file.sha256)
    if source is None:
        return GoFile(file=file, path=path)
    return GoFile(
        file=file,
        path=path,
        source_path=source.path,
        source_mtime_ns=source.mtime_ns,
        source_inode=source.inode,
    )


def code_of(tx: Tx, agent_id: str, ground: LaunchPaths) -> GoCode | None:
    """Return the bundle of a paglet and the path of that bundle on this host, or None if the paglet has no bundle."""
    bundle = paglets.bundle_of(tx, agent_id)
    if bundle is None:
        return None
    return code_at(bundle, ground)


def code_at(bundle: BlobRef, ground: LaunchPaths) -> GoCode:
    """Return a bundle and its path on this host."""
    return GoCode(bundle=bundle, path=ground.blob_path(bundle.sha256), folder=ground.code_folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRun:
    """The result of `close_run`. `status`: the new status of the job, or None if the run was no attempt of a job.

    `has_passed_on`: True if the next job in the warm worker of the run has the lease now. `has_work`: True if the
    paglet has more to do on this host.
    """

    status: str | None
    has_passed_on: bool = False
    has_work: bool = False


def close_run(tx: Tx, run: Run, how: ProcessExit, runtime: float, own: HostRef, now: float) -> ClosedRun:
    """Close a run that has ended. Pass its lease on to the next run in its warm worker, if there is one.

    Raises StoreTransient if its outcome is not stored yet.
    """
    if run.is_unstored:
        raise StoreTransient("the outcome of this run is not stored yet")
    has_passed_on = bool(how.next_token) and lines.pass_on(tx, run.agent_id, how.next_token, now)
    status = _close(tx, run, how, runtime, own, now)
    return ClosedRun(status=status, has_passed_on=has_passed_on, has_work=paglets.has_work(tx, run.agent_id, now))


def _close(tx: Tx, run: Run, how: ProcessExit, runtime: float, own: HostRef, now: float) -> str | None:
    tx.run("DELETE FROM runs WHERE token = ?", run.stamp.token)
    tx.touch(run.agent_id)
    outcomes.count_launcher(tx, run.agent_id, run.entry, how)
    if run.entry == "attempt":
        attempt = Attempt(
            agent_id=run.agent_id,
            attempt=run.stamp.attempt,
            host=own,
            runtime_seconds=runtime,
            remark=run.stop_reason,
            cut_off=not run.done,
        )
        return outcomes.ended(tx, attempt, how, now)
    if run.entry != "message" and not run.done and (how.is_culprit or not how.launcher_lost):
        text = run.stop_reason or exits.describe(how, "the hook returned")
        hook_failed(tx, run.agent_id, run.entry, text, now, own=own, traceback=how.stderr_tail)
    outcomes.retire(tx, run.agent_id, now)
    tx.wake("cleanup")
    return None


def cancelled_and_open(tx: Tx) -> tuple[list[str], set[str]]:
    """Return the ids of running or assigned jobs whose cancellation is requested, and the tokens of all open runs.

    Leave out a job that has reported and whose end its collector has recorded. It ends by itself, at the latest after
    `report_grace`. Ending its process could also end the next job of a warm worker.
    """
    cancelled = tx.all(
        "SELECT agent_id FROM requests r WHERE unwanted IS NOT NULL AND status IN ('ASSIGNED', 'RUNNING')"
        " AND NOT (unwanted = 'recorded' AND EXISTS"
        " (SELECT 1 FROM job_states j WHERE j.agent_id = r.agent_id AND j.outcome IS NOT NULL)) ORDER BY agent_id"
    )
    tokens = tx.all("SELECT token FROM runs ORDER BY token")
    return [row["agent_id"] for row in cancelled], {row["token"] for row in tokens}


def is_open(tx: Tx, token: str) -> bool:
    """Return True if the run with this token has not ended."""
    return tx.value("SELECT 1 FROM runs WHERE token = ?", token) is not None


def set_usage(tx: Tx, token: str, usage: str) -> None:
    """Store the resource usage of a run, given as JSON text."""
    tx.run("UPDATE runs SET usage = ? WHERE token = ?", usage, token)


def display_name(tx: Tx, agent_id: str) -> str:
    """Return GROUP/KEY of a job, or the id of any other paglet."""
    job = queue.job(tx, agent_id)
    return agent_id if job is None else f"{job.group_id}/{job.job_key}" if job.group_id else job.job_key

"""The lifecycle of a paglet: its hooks and its pending action (column `intent`). Each step is one transaction."""

from __future__ import annotations

from typing import Any

from paglets.api.undelivered import FailedHook
from paglets.codec.envelope import check_seconds
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import Conflict
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.core.text import counted
from paglets.host.records import notes
from paglets.store import jobfiles, residence
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.worker.protocol import Intent
from paglets.worker.requests import NewNote


def set_pending_action(tx: Tx, agent_id: str, intent: dict[str, Any] | None) -> None:
    """Replace the pending action of a paglet, or remove it if `intent` is None.

    If `run` was to follow a pending move, it now follows the new action, or is scheduled if there is none. A disposal
    that replaces a move is marked, so that the files that were about to move are kept.
    """
    before = _intent_of(tx, agent_id)
    then = before.get("then")
    if intent is None:
        change = "intent = NULL, problem = '', hook = coalesce(hook, ?)"
        tx.run(f"UPDATE paglets SET {change} WHERE agent_id = ?", then, agent_id)
    else:
        marks = {} if then is None else {"then": then}
        if "dispose" in intent and ("move" in before or UNDELIVERED in before):
            marks[UNDELIVERED] = True
        tx.run("UPDATE paglets SET intent = ?, problem = '' WHERE agent_id = ?", dumps({**intent, **marks}), agent_id)
    tx.wake("mailbox")


MAX_HEAD_CHARACTERS = 500
"""The maximum length of the error text in a note. It leaves room for the instructions that follow."""

UNDELIVERED = "undelivered"
"""The mark of a pending disposal that replaced a move. The files of the paglet must then be kept."""


READY_BY = {"dispatching": "move", "disposing": "dispose"}
"""The action that each of these hooks precedes. If a hook itself requests its action, the hook does not run again."""


def request_action(tx: Tx, agent_id: str, entry: str, intent: Intent) -> None:
    """Store the action that the code of a paglet requests as its pending action. Raises Invalid.

    Ignore the request if a disposal is pending, unless it comes from `on_disposing`.
    """
    if entry != "disposing" and "dispose" in _intent_of(tx, agent_id):
        return
    tree: dict[str, Any] | None = None
    if intent.dispose:
        tree = {"dispose": True}
    elif intent.move is not None:
        tree = {"move": to_json(intent.move)}
    elif intent.rest is not None:
        tree = {"rest": None if intent.rest.seconds is None else check_seconds(intent.rest.seconds)}
    if tree is not None and READY_BY.get(entry) in tree:
        tree["ready"] = True
    if tree is not None or intent.stay:
        set_pending_action(tx, agent_id, tree)


def start_hook(tx: Tx, agent_id: str, hook: str, intent: dict[str, Any]) -> None:
    """Schedule the hook that precedes this pending action: `on_dispatching` or `on_disposing`."""
    jobfiles.take_failure(tx, agent_id)
    text = dumps({**intent, "begun": True})
    tx.run("UPDATE paglets SET hook = ?, intent = ? WHERE agent_id = ?", hook, text, agent_id)
    tx.wake("mailbox")


def _intent_of(tx: Tx, agent_id: str) -> dict[str, Any]:
    text = tx.value("SELECT intent FROM paglets WHERE agent_id = ?", agent_id)
    return {} if text is None else loads(text)


def set_hook(tx: Tx, agent_id: str, hook: str | None) -> None:
    tx.run("UPDATE paglets SET hook = ? WHERE agent_id = ?", hook, agent_id)
    tx.wake("mailbox")


def hook_done(tx: Tx, agent_id: str, entry: str, then_run: bool) -> None:
    """Schedule the next step after a hook has returned."""
    jobfiles.clear_failure(tx, agent_id)
    if entry in ("dispatching", "disposing"):
        intent = _intent_of(tx, agent_id)
        if "begun" in intent:
            ready = dumps({**intent, "ready": True})
            tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", ready, agent_id)
        else:
            _drop_move(tx, agent_id, intent)
    else:
        if entry == "activation":
            _activate(tx, agent_id)
        hook = "run" if then_run and entry != "run" else None
        tx.run("UPDATE paglets SET hook = iif(inactive, NULL, ?) WHERE agent_id = ?", hook, agent_id)
    tx.wake("mailbox", "scheduler")


def keep_files_on_arrival(tx: Tx, agent_id: str, entry: str, is_default: bool, now: float) -> None:
    """Keep the files of a finished job that arrived, if its class does not define `on_arrival` (`is_default`).

    Do nothing if another move is pending or `run` is scheduled, because the job then still needs its files.
    """
    if entry != "arrival" or not is_default:
        return
    row = tx.one("SELECT hook, intent FROM paglets WHERE agent_id = ?", agent_id)
    if row is not None and row["hook"] is None and "move" not in _intent_of(tx, agent_id):
        keep_files(tx, agent_id, now)


def keep_files(tx: Tx, agent_id: str, now: float) -> int:
    """Turn the files of a finished job into artifacts of this host, and record an event. Return their number."""
    count = jobfiles.keep_files(tx, agent_id, now)
    if count:
        record_event(
            tx, now, "files_kept", agent_id, f"{counted(count, 'file')} of a finished job became artifacts of this host"
        )
    return count


def hook_failed(
    tx: Tx, agent_id: str, entry: str, error: str, now: float, *, own: HostRef, traceback: str = ""
) -> None:
    """Record that a hook raised an error, or that its process ended before the hook returned.

    A finished job of a group stays on this host with its files, so that the user can rerun the hook. Any other paglet
    continues without the hook. Its move is dropped if the hook was `on_dispatching`.
    """
    error = error.strip()[: jobfiles.MAX_ERROR_CHARACTERS]
    job = jobfiles.finished_job(tx, agent_id)
    if job is not None:
        _hold(tx, agent_id, entry, job, error, now, own, traceback.strip()[-jobfiles.MAX_TRACEBACK_CHARACTERS :])
    elif entry == "disposing":
        hook_done(tx, agent_id, entry, False)
    else:
        if entry == "activation":
            _activate(tx, agent_id)
        if entry == "dispatching":
            _drop_move(tx, agent_id, _intent_of(tx, agent_id))
        else:
            set_hook(tx, agent_id, None)
        tx.run("UPDATE paglets SET hook_error = ? WHERE agent_id = ?", f"{error}\n{traceback}".strip()[:4000], agent_id)
    tx.touch(agent_id)
    tx.wake("mailbox", "scheduler")
    record_event(tx, now, "hook_failed", agent_id, f"{entry}: {error}\n{traceback}")


def _hold(
    tx: Tx, agent_id: str, entry: str, job: jobfiles.GroupJob, error: str, now: float, own: HostRef, traceback: str
) -> None:
    """Keep a finished job whose hook failed, and notify the user.

    An action that was requested while the hook ran stays pending. The move or disposal that triggered the hook waits
    until the user reruns the hook.
    """
    if entry == "activation":
        _activate(tx, agent_id)
    intent = _intent_of(tx, agent_id)
    held = dumps(intent) if "begun" in intent else None
    left = None if held is not None or not intent else dumps(intent)
    tx.run("UPDATE paglets SET hook = NULL, intent = ?, problem = '' WHERE agent_id = ?", left, agent_id)
    failed = FailedHook(
        agent_id=agent_id,
        group_id=job.group_id,
        job_key=job.job_key,
        entry=entry,
        host=own,
        error=error,
        traceback=traceback,
        failed_at=now,
        kept_until=now + jobfiles.KEEP_SECONDS,
    )
    count = jobfiles.keep_failed(tx, agent_id, failed, held)
    what = f"the job and its {counted(count, 'file')} stay" if count else "the job stays"
    again = f"`paglets jobs rerun-hook {job.group_id}/{job.job_key}` runs the hook again"
    text = f"{failed.text[:MAX_HEAD_CHARACTERS]}; {what} on that host for 30 days: {again}"
    notes.send(tx, agent_id, own.name, (NewNote(at=now, level="error", text=text),), now)


def rerun(tx: Tx, agent_id: str) -> None:
    """Schedule a failed hook again. Raises Conflict if the paglet has no failed hook.

    The hook gets a scratch directory that is rebuilt from blobs.
    """
    row = jobfiles.take_failure(tx, agent_id)
    if row is None:
        job = jobfiles.finished_job(tx, agent_id)
        name = agent_id if job is None else f"{job.group_id}/{job.job_key}"
        raise Conflict(f"{name} has no failed hook, or the hook is already running again")
    residence.mark_scratch_stale(tx, agent_id)
    if row["hook"] == "activation":
        change = "inactive = 1, wakes_at = 0"
        tx.run(f"UPDATE paglets SET {change} WHERE agent_id = ?", agent_id)
    else:
        change = "hook = ?, intent = coalesce(?, intent)"
        tx.run(f"UPDATE paglets SET {change} WHERE agent_id = ?", row["hook"], row["intent"], agent_id)
    tx.touch(agent_id)
    tx.wake("mailbox")


def expire_failed_hooks(tx: Tx, now: float, own: HostRef) -> None:
    """Remove finished jobs whose failed hook the user did not rerun within 30 days. Notify the user."""
    for failed in jobfiles.expired(tx, now, own):
        job = f"{failed.group_id}/{failed.job_key}"
        text = f"{job}: {failed.text[:MAX_HEAD_CHARACTERS]}; the hook was not run again within 30 days"
        text += ", so the job and its files are removed"
        notes.send(tx, failed.agent_id, own.name, (NewNote(at=now, level="warning", text=text),), now)
        record_event(tx, now, "hook_failed", failed.agent_id, text)
        residence.dispose(tx, failed.agent_id, now)
        tx.wake("cleanup")


def _drop_move(tx: Tx, agent_id: str, intent: dict[str, Any]) -> None:
    """Drop the move that triggered this hook. Keep any action requested since, and reschedule `run`."""
    then = intent.pop("then", None)
    left = None if "begun" in intent or not intent else dumps(intent)
    tx.run("UPDATE paglets SET hook = ?, intent = ? WHERE agent_id = ?", then, left, agent_id)


def deactivate(tx: Tx, agent_id: str, seconds: float | None, now: float) -> None:
    """Make a paglet inactive until a message arrives, or until `seconds` have passed if they are given.

    A scheduled hook and a pending action are dropped. The next hook is `activation`.
    """
    at = None if seconds is None else now + seconds
    tx.run("UPDATE paglets SET inactive = 1, wakes_at = ?, hook = NULL, intent = NULL WHERE agent_id = ?", at, agent_id)
    tx.wake("mailbox")


def _activate(tx: Tx, agent_id: str) -> None:
    tx.run("UPDATE paglets SET inactive = 0, wakes_at = NULL WHERE agent_id = ?", agent_id)


def entry_for_calls(tx: Tx, agent_id: str) -> str:
    """Return the entry that handles the calls to a paglet, or "" while a hook other than `run` must run first."""
    row = tx.one("SELECT hook, inactive FROM paglets WHERE agent_id = ?", agent_id)
    if row is None or row["hook"] not in (None, "run"):
        return ""
    return "activation" if row["inactive"] else "message"


def next_wake_time(tx: Tx, wall: float) -> float | None:
    """Return the next time after `wall` at which an inactive paglet wakes, in epoch seconds, or None."""
    at: float | None = tx.value("SELECT min(wakes_at) FROM paglets WHERE wakes_at > ?", wall)
    return at

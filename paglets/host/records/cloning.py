"""Cloning: create a second paglet from the database rows of the original."""

from __future__ import annotations

from dataclasses import replace

from paglets.codec.strict_json import dumps
from paglets.core.errors import Conflict, Invalid, NameTaken
from paglets.core.record import to_json
from paglets.core.refs import check_agent_id
from paglets.core.text import with_article
from paglets.store import paglets, residence
from paglets.store.db import Tx
from paglets.worker.requests import NewClone


def make(tx: Tx, agent_id: str, clone: NewClone, now: float) -> None:
    """Create a clone with the state, storage and files of the paglet, but without its messages and artifacts.

    The clone is active even if the original is inactive. It moves to `clone.target`, if that is given. Raises
    Invalid if the original is a job or a collector, NameTaken if this host has a paglet with the clone's name, and
    Conflict if it knows one with the clone's id.
    """
    original = paglets.freeze(tx, agent_id, 1, now)
    if original.kind != "paglet":
        raise Invalid(
            f"{with_article(original.kind)} cannot be cloned: only paglets that are neither jobs nor collectors can"
        )
    if clone.name and residence.holder_of(tx, clone.name) is not None:
        raise NameTaken(
            f"a paglet named {clone.name!r} already exists on this host", hint=["give the clone another name"]
        )
    made = replace(
        original,
        agent_id=check_agent_id(clone.agent_id),
        created_at=now,
        name=clone.name,
        hook="clone",
        inbox=(),
        taken=(),
        files=tuple(replace(file, mode="copy", attempt=0) for file in original.files),
        artifacts=(),
        inactive=False,
        wakes_in_seconds=None,
    )
    if not residence.create(tx, made, now):
        raise Conflict(f"{agent_id} cannot be cloned: this host knows another paglet with the id {clone.agent_id}")
    if clone.target is not None:
        intent = dumps({"move": to_json(clone.target)})
        tx.run("UPDATE paglets SET intent = ? WHERE agent_id = ?", intent, clone.agent_id)

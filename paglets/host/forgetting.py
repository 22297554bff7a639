"""A host that is gone for good, as a person says: nothing waits for it any more."""

from __future__ import annotations

from collections.abc import Callable

from paglets.api.hosts import Forgotten
from paglets.core.errors import Conflict, Invalid
from paglets.host import outcomes
from paglets.host.comeback import come_back_from_forgotten, dropped_text
from paglets.host.hooks import ask_for
from paglets.host.runner import note
from paglets.host.shell import Shell
from paglets.mesh.gossip import Gossip
from paglets.mesh.table import STORE_ID
from paglets.store import paglets, recalls
from paglets.store.db import Tx

PAGE = 100
"""Paglets of one transaction."""


def forget(shell: Shell, gossip: Gossip, store_id: str) -> Forgotten:
    """Drop the host with that store from the mesh, as far as this host is asked, and take back what was to go there.

    Any thread; a repeat finds nothing more to do. Raises Conflict while that host is online, Invalid.
    """
    name, known = _may_be_forgotten(shell, gossip, store_id)
    gossip.forget(store_id)
    taken_back = _all(shell, lambda tx: take_back(tx, store_id, shell.clock.wall()))
    dropped = _all(shell, lambda tx: _drop_moves(tx, store_id, name, shell.clock.wall()))
    text = f"{name} was forgotten; taken back: {taken_back}, moves dropped: {dropped}"
    shell.store.write(lambda tx: _note(tx, store_id, text, shell.clock.wall()))
    shell.log(text)
    return Forgotten(host=shell.own, known=known, taken_back=taken_back, moves_dropped=dropped)


def take_back(tx: Tx, store_id: str, now: float) -> int:
    """Take back some of what is under way to that host; gives how many: fewer than PAGE when nothing is left."""
    found = recalls.towards(tx, store_id, PAGE)
    for each in found:
        come_back_from_forgotten(tx, each.key, now)
    return len(found)


def _may_be_forgotten(shell: Shell, gossip: Gossip, store_id: str) -> tuple[str, bool]:
    """Its name, or its store's id where it is no member, and whether it is one."""
    if not STORE_ID.fullmatch(store_id):
        raise Invalid(f"store_id {store_id[:80]!r} is not well formed")
    if store_id == shell.own.store_id:
        raise Conflict(f"{shell.own.name} is the host that was asked: a host does not forget itself")
    for view in gossip.members():
        if view.member.store_id == store_id:
            if view.online:
                raise Conflict(f"{view.member.name} is online, as {shell.own.name} sees it; stop it first")
            return view.member.name, True
    return store_id, False


def _all(shell: Shell, step: Callable[[Tx], int]) -> int:
    """The sum of all steps; the last one did less than a whole page."""
    total = 0
    while True:
        count = shell.store.write(step)
        total += count
        if count < PAGE:
            return total


def _drop_moves(tx: Tx, store_id: str, name: str, now: float) -> int:
    """Moves to that host that have not begun are not wished any more."""
    found = recalls.moves_towards(tx, store_id, PAGE)
    for agent_id in found:
        ask_for(tx, agent_id, None)
        paglets.set_problem(tx, agent_id, dropped_text(name))
        outcomes.retire(tx, agent_id, now)
        tx.touch(agent_id)
    if found:
        tx.wake("scheduler", "placer")
    return len(found)


def _note(tx: Tx, store_id: str, text: str, now: float) -> None:
    recalls.tell_no_more(tx, store_id)
    note(tx, now, "host_forgotten", store_id, text)

"""Check that jobs run at home only if they may: home knows no other host, or `allow_home` is set."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.store.db import Tx
from tests.simulator.machine import Machine
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness

_NEVER_MOVED = (
    "SELECT json_extract(q.request, '$.rules.allow_home') FROM requests q JOIN paglets p USING (agent_id)"
    " JOIN residence r USING (agent_id) WHERE q.agent_id = ? AND r.epoch = 1 AND q.status IN"
    " ('WAITING_FOR_SLOT', 'RUNNING') AND json_extract(p.home, '$.store_id') = ?"
)


class AtHome:
    """A check of each job when it enters the queue of its home. Later it may stay there, or be moved there."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._judged: set[tuple[str, str]] = set()

    def look(self, machine: Machine, agent_ids: Iterable[str]) -> None:
        """Check these jobs against the stored hosts. State in the host's memory is not trusted."""
        for agent_id in agent_ids:
            key = (machine.store_id, agent_id)
            may = None if key in self._judged else machine.rows.value(_NEVER_MOVED, agent_id, machine.store_id)
            if may is not None:
                self._judged.add(key)
                if not may:
                    self._placed(machine, agent_id)

    def _placed(self, machine: Machine, agent_id: str) -> None:
        if _knows_others(machine.rows):
            self._witness.violated(f"{agent_id} runs at home, on {machine.name}, although another host is known")
        else:
            self._witness.saw(Seen.ALONE)


def _knows_others(tx: Tx) -> bool:
    return tx.value("SELECT 1 FROM hosts LIMIT 1") is not None

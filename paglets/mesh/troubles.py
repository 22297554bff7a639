"""What went wrong when this host last spoke to others, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paglets.api.hosts import Member
from paglets.core.errors import NotAllowed, PagletsError, Unreachable
from paglets.mesh.table import ONLINE_SECONDS, Table

ONE_WAY_FAILURES = 3
"""Connections that failed one after the other to a host that speaks to this one meanwhile."""


class Troubles:
    """The last error for each host that did not answer since, by store id. On the runner; `texts` in any thread."""

    def __init__(self) -> None:
        self._errors: dict[str, PagletsError] = {}
        self._failures: dict[str, int] = {}

    def failed(self, store_id: str, error: PagletsError) -> None:
        self._failures[store_id] = self._failures.get(store_id, 0) + 1 if isinstance(error, Unreachable) else 0
        self._errors[store_id] = error

    def answered(self, store_id: str) -> None:
        self._errors.pop(store_id, None)
        self._failures.pop(store_id, None)

    def texts(self, own: Member, table: Table, mute_seconds: Callable[[str], float]) -> Mapping[str, str]:
        """For each host in words; `mute_seconds`: since that host itself spoke to this one."""
        texts = {}
        for store_id, error in list(self._errors.items()):
            row = table.rows.get(store_id)
            if row is not None and not row.member.reachable and isinstance(error, Unreachable):
                continue  # nobody is to connect to it
            often = self._failures.get(store_id, 0) >= ONE_WAY_FAILURES
            if row is not None and often and row.up and mute_seconds(store_id) < ONLINE_SECONDS:
                texts[store_id] = _one_way(own, row.member)
            else:
                texts[store_id] = trouble_text(error)
        return texts


def trouble_text(error: PagletsError) -> str:
    if isinstance(error, NotAllowed):
        return (
            f"not joined: it does not take this host's mesh key; copy mesh.key from one to the other ({error.message})"
        )
    return error.message


def _one_way(own: Member, member: Member) -> str:
    return (
        f"{own.name} cannot connect to {member.name} at {member.url}, though it hears from it: open that port, "
        f"or set `reachable = false` in [hosts.{member.name}] and restart it"
    )

"""Transition tables: each one defines all status changes that one kind of object can make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from paglets.core.errors import IllegalTransition
from paglets.core.text import with_article

S = TypeVar("S", bound=str)


class Transitions(Generic[S]):
    """A transition table. `what` names the kind of object in errors. `table` maps (status, event) to the new status."""

    def __init__(self, what: str, start: S, table: Mapping[tuple[S, str], S]) -> None:
        self._what = what
        self._start = start
        self._table: dict[tuple[str, str], S] = {(old, event): new for (old, event), new in table.items()}

    def move(self, old: str, event: str) -> S:
        """Return the status that `event` changes `old` to. Raises IllegalTransition if the table does not allow it."""
        try:
            return self._table[old, event]
        except KeyError:
            raise IllegalTransition(f"{with_article(self._what)} that is {old} cannot be {event}") from None

    def allows(self, old: str, event: str) -> bool:
        return (old, event) in self._table

    def events(self) -> tuple[str, ...]:
        """Return all events, in the order of the table."""
        return tuple(dict.fromkeys(event for _, event in self._table))

    def statuses(self) -> tuple[str, ...]:
        """Return all statuses: the initial one, then the others in the order of the table."""
        seen = [self._start, *(status for (old, _), new in self._table.items() for status in (old, new))]
        return tuple(dict.fromkeys(str(status) for status in seen))

    def final(self) -> tuple[str, ...]:
        """Return the final statuses, which no event changes."""
        left = {old for old, _ in self._table}
        return tuple(status for status in self.statuses() if status not in left)

    def diagram(self) -> str:
        """Return the table as a Mermaid state diagram with at most one arrow from one status to another."""
        arrows: dict[tuple[str, str], list[str]] = {}
        for (old, event), new in self._table.items():
            arrows.setdefault((old, new), []).append(event.replace("_", " "))
        lines = ["stateDiagram-v2", f"    [*] --> {self._start}"]
        lines += [f"    {old} --> {new}: {', '.join(events)}" for (old, new), events in arrows.items()]
        lines += [f"    {status} --> [*]" for status in self.final()]
        return "\n".join(lines) + "\n"

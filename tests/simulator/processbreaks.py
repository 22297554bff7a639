"""Deliberate bugs in the handling of processes, made like those in `breaks`: templates, residents, lost events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from paglets.core.record import to_json
from paglets.worker.protocol import Changes, Go
from tests.simulator.breaks import Break, by_sql, rewritten
from tests.simulator.faults import Trouble
from tests.simulator.profile import Profile, calm
from tests.simulator.tampering import Tampering
from tests.simulator.templates import Memory, SimTemplates, Template

LOSE_EVERY_WAKES = 7


class Eager(SimTemplates):
    """A launcher whose templates import before the host has stored their processes."""

    def started(self, template: Template, pid: int) -> None:
        super().started(template, pid)
        self.begin_import(template)

    def allow_import(self, token: str) -> None:
        pass


class Leaky(SimTemplates):
    """A launcher whose runs share the memory of their template."""

    def copied(self, memory: Memory) -> Memory:
        return memory


@dataclass(slots=True)
class Memories:
    """Processes that find the state which the last process of their paglet on this host left in memory."""

    _left: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def state_of(self, go: Go) -> dict[str, Any]:
        return self._left.setdefault((go.host.name, go.stamp.agent_id), dict(go.state))


def _kept_memory() -> Tampering:
    return Tampering(state_of=Memories().state_of)


def _answered_without_changes() -> Tampering:
    """Drop the changes of a handler that returns a value, so that its host has nothing to store."""

    def frame(said: dict[str, Any]) -> dict[str, Any]:
        if said["op"] != "handled" or said["args"].get("value") is None:
            return said
        return {**said, "args": {**said["args"], "changes": to_json(Changes())}}

    return Tampering(frame=frame)


def _lost_events() -> Tampering:
    count = 0

    def wakes(parts: tuple[str, ...]) -> tuple[str, ...]:
        nonlocal count
        count += 1
        return parts if count % LOSE_EVERY_WAKES else ()

    return Tampering(wakes=wakes)


def _importing() -> Profile:
    """Return a run of jobs with code, which are forked from templates, on machines that crash and restart."""
    base = calm(2)
    load = replace(base.load, groups=3, most_jobs=8, files=1.0, counters=0, plans=("success",))
    return replace(base, load=load, trouble=Trouble(crashes=6, templates=2, seconds=20.0))


def _calling() -> Profile:
    """Return a run of paglets that are called repeatedly and move."""
    base = calm(2)
    return replace(base, load=replace(base.load, groups=0, moves=12, calls=15), most_events=20_000)


PROCESS_BREAKS: tuple[Break, ...] = (
    Break(
        name="a template imports before its process is stored",
        tamper=lambda: Tampering(templates=Eager),
        profile=_importing(),
    ),
    by_sql(
        "the process of a template is not stored",
        replace(rewritten("INSERT OR REPLACE INTO templates", ""), by=""),
        profile=_importing(),
    ),
    by_sql(
        "a template of an earlier start goes on",
        rewritten(" UNION ALL SELECT pid, start_time, token FROM templates", ""),
        profile=_importing(),
    ),
    Break(
        name="a run sees what an earlier run of its template wrote",
        tamper=lambda: Tampering(templates=Leaky),
        profile=_importing(),
    ),
    Break(name="a process keeps its memory across a move", tamper=_kept_memory, profile=_calling()),
    Break(
        name="a call that changed the state is answered without a commit",
        tamper=_answered_without_changes,
        profile=_calling(),
    ),
    Break(name="an event is lost", tamper=_lost_events, profile=_calling()),
)

"""The templates of a host: zygotes that have imported the module of a job. Attempts forked from them do not import it.

Attempts that need a new template wait for it. If it cannot be made, or its import takes too long, they start without a
template. So no job fails because of its template. All methods run on the launcher's I/O thread.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from paglets.worker.host.child_link import ChildLink
from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.host.supervisor import ZygoteSupervisor
from paglets.worker.host.zygote_link import ForkedZygote, ZygoteLink
from paglets.worker.launch import LaunchSpec, TemplateEvents, TemplateSource
from paglets.worker.linux import template_mark
from paglets.worker.processes import ProcessTable, kill_runs
from paglets.worker.zygote_protocol import (
    EndRun,
    ExitedRun,
    FailedRun,
    Imported,
    ImportModule,
    StartedRun,
    StartTemplate,
)

MAX_TEMPLATES = 8
"""Maximum number of templates. Each holds the memory of its imports: about 30 MB with numpy, 300 MB with torch."""

IDLE_SECONDS = 60.0
"""Time after which a template without runs ends: long enough for the next group of an interactive user."""

WAIT_SECONDS = 10.0
"""Time that attempts wait for an import. Heavy imports from a cold disk take a few seconds."""

IMPORT_SECONDS = 60.0
"""Time limit of an import. After this, the template is killed."""

RETRY_SECONDS = (5.0, 60.0, 600.0)
"""Times until a template is made again after it died or its import failed for the first, second and third time.

Both may have a cause that passes: the kernel kills a process when memory runs out, and an import fails while the disk
is full. After the fourth time, the module itself is the probable cause, and no template is made again. The limit is
low, because the attempts that were forked from a template end when it dies.
"""

MAX_REFUSALS = 1000
"""Maximum number of imports for which the reason against a template is remembered. Each takes about 200 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateKey:
    """The identity of a template: the hash of the bundle, the module, and settings that libraries read at import."""

    bundle: str
    module: str
    threads: int
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A reason, valid until the monotonic time `until`, why attempts import their module themselves.

    `failures`: how often the template has died or failed to import so far.
    """

    reason: str
    until: float = math.inf
    failures: int = 0


def next_refusal(reason: str, last: Refusal | None, now: float) -> Refusal:
    """Return the refusal after a template has died or failed to import. `last`: the previous refusal, if any."""
    failures = 1 if last is None else last.failures + 1
    if failures > len(RETRY_SECONDS):
        return Refusal(reason=f"{reason}; this happened {failures} times", failures=failures)
    pause = RETRY_SECONDS[failures - 1]
    return Refusal(reason=f"{reason}; a retry follows after {pause:g} s", until=now + pause, failures=failures)


@dataclass(slots=True, kw_only=True, eq=False)
class TemplateProcess:
    """A template. `link`: the connection to its process, `ready` after the import. `waiting`: the runs to be forked.

    `parent`: the zygote that was asked to fork the template; None before that. `control`: the template's end of its
    control socket. `used_at`: the monotonic time when the template was requested or last used. `is_ending`: True if the
    end of the template was requested.
    """

    key: TemplateKey
    token: str
    source: TemplateSource
    environment: dict[str, str]
    link: ZygoteLink
    process: ForkedZygote
    control: int
    asked_at: float
    used_at: float
    parent: ZygoteLink | None = None
    is_ending: bool = False
    waiting: deque[ChildLink] = field(default_factory=deque)


class TemplatePool:
    """The templates of a launcher. `has_work`: a function that returns True if a zygote has runs."""

    def __init__(
        self,
        zygotes: ZygoteSupervisor,
        table: ProcessTable,
        heartbeat: HeartbeatTimeouts,
        events: TemplateEvents,
        has_work: Callable[[ZygoteLink], bool],
    ) -> None:
        self._zygotes = zygotes
        self._table = table
        self._heartbeat = heartbeat
        self._events = events
        self._has_work = has_work
        self._by_key: dict[TemplateKey, TemplateProcess] = {}
        self._by_token: dict[str, TemplateProcess] = {}
        self._refusals: dict[TemplateKey, Refusal] = {}

    def __contains__(self, token: str) -> bool:
        """Return True if `token` is that of a template whose processes have not ended."""
        return token in self._by_token

    def queues(self) -> Iterator[tuple[ZygoteLink, deque[ChildLink]]]:
        """Return the zygote of each template, with the runs that wait for this template."""
        return ((template.link, template.waiting) for template in list(self._by_key.values()))

    # The methods below handle requests of the launcher.

    def take(self, child: ChildLink, now: float) -> bool:
        """Let a run wait for the template that it needs. Return False if it must start without one."""
        source = child.spec.template
        if source is None or sys.platform != "linux":
            return False
        key = _key(child.spec, source)
        template = self._by_key.get(key)
        refusal = self._refusals.get(key)
        child.no_template = refusal.reason if refusal is not None and now < refusal.until else ""
        if template is None and not child.no_template:
            template = self._open(key, child.spec, source, now)
        if template is None:
            return False
        if not template.link.ready and now >= template.asked_at + WAIT_SECONDS:
            child.no_template = _LATE
            return False
        template.used_at = now
        template.waiting.append(child)
        return True

    def _open(self, key: TemplateKey, spec: LaunchSpec, source: TemplateSource, now: float) -> TemplateProcess | None:
        if len(self._by_key) >= MAX_TEMPLATES and not self._end_oldest():
            return None
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        process = ForkedZygote(self._table)
        template = TemplateProcess(
            key=key,
            token=template_mark(spec.token),
            source=source,
            environment=spec.environment,
            link=ZygoteLink(ours, process, self._heartbeat),
            process=process,
            control=theirs.detach(),
            asked_at=now,
            used_at=now,
        )
        self._by_key[key] = self._by_token[template.token] = template
        self._zygotes.add(template.link)
        return template

    def _end_oldest(self) -> bool:
        """End the idle template that was used least recently. Return False if none is idle."""
        idle = [each for each in self._by_key.values() if self._is_idle(each)]
        if idle:
            self._end(min(idle, key=lambda each: each.used_at))
        return bool(idle)

    def end_idle(self) -> None:
        """End the templates without runs, because their memory is needed."""
        for template in [each for each in self._by_key.values() if self._is_idle(each)]:
            self._end(template)

    def _is_idle(self, template: TemplateProcess) -> bool:
        return template.link.ready and not template.waiting and not self._has_work(template.link)

    def _end(self, template: TemplateProcess) -> None:
        template.is_ending = True
        del self._by_key[template.key]
        self._drop_unsent(template)
        self._zygotes.end(template.link)

    def _drop_unsent(self, template: TemplateProcess) -> None:
        """Close the template's end of its control socket if no zygote has it yet, so that `link` ends."""
        if template.parent is None:
            os.close(template.control)
            del self._by_token[template.token]

    def request_forks(self) -> None:
        """Ask the shared zygote to fork each template that was not requested yet."""
        shared = self._zygotes.shared
        if shared is None or not shared.ready:
            return
        for template in self._by_key.values():
            if template.parent is None:
                template.parent = shared
                shared.unanswered_starts += 1
                request = StartTemplate(
                    token=template.token, environment=template.environment, threads=template.key.threads
                )
                self._zygotes.send(shared, request, template.control)

    def allow_import(self, token: str) -> None:
        template = self._by_token.get(token)
        if template is not None and not template.is_ending:
            self._zygotes.send(template.link, ImportModule(source=template.source))

    def remove_waiting(self, child: ChildLink) -> bool:
        """Remove a run that waits for a template. Return False if it does not wait for one."""
        queue = next((queue for _, queue in self.queues() if child in queue), None)
        if queue is not None:
            queue.remove(child)
        return queue is not None

    def note_use(self, link: ZygoteLink, now: float) -> None:
        """Record that a run of a zygote has ended. If the zygote is a template, its idle time restarts."""
        template = self._of(link)
        if template is not None:
            template.used_at = now

    # The methods below handle frames about templates. They return the runs that must start without a template.

    def on_started(self, started: StartedRun) -> None:
        template = self._by_token[started.token]
        template.process.identify(started.pid, started.start_time)
        self._events.started(started.token, started.pid, started.start_time)

    def on_failed(self, failed: FailedRun, now: float) -> list[ChildLink]:
        return self._refuse_for_now(self._by_token.pop(failed.token), failed.error, now)

    def on_imported(self, link: ZygoteLink, imported: Imported, now: float) -> list[ChildLink]:
        template = self._of(link)
        if template is None:
            return []
        if imported.has_failed:
            return self._refuse_for_now(template, imported.refusal, now)
        if imported.refusal:
            return self._refuse(template, Refusal(reason=imported.refusal))
        link.ready = True
        link.heartbeat.answered()
        return []

    def on_exited(self, exited: ExitedRun, now: float) -> list[ChildLink]:
        """Forget a template whose processes have ended. Unless its end was requested, it is not made again at once."""
        template = self._by_token.pop(exited.token)
        self._events.ended(template.token)
        return [] if template.is_ending else self._refuse_for_now(template, _DIED, now)

    def on_gone(self, link: ZygoteLink) -> list[ChildLink]:
        """Handle the end of a zygote, which may be a template or the zygote that forked templates."""
        for orphan in [each for each in self._by_token.values() if each.parent is link]:
            del self._by_token[orphan.token]
            kill_runs(self._table, [orphan.process.run_tree(orphan.token)])
            self._events.ended(orphan.token)
        template = self._of(link)
        if template is None:
            return []
        del self._by_key[template.key]
        return self._released(template, "")

    def _refuse_for_now(self, template: TemplateProcess, reason: str, now: float) -> list[ChildLink]:
        """End a template for a reason that may pass."""
        return self._refuse(template, next_refusal(reason, self._refusals.get(template.key), now))

    def _refuse(self, template: TemplateProcess, refusal: Refusal) -> list[ChildLink]:
        """End a template, and remember the reason, so that its import gets no template while the refusal holds."""
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals.clear()
        self._refusals[template.key] = refusal
        if self._by_key.get(template.key) is template:
            self._end(template)
        return self._released(template, refusal.reason)

    def _released(self, template: TemplateProcess, reason: str) -> list[ChildLink]:
        children = list(template.waiting)
        template.waiting.clear()
        for child in children:
            child.no_template = reason
        return children

    def _of(self, link: ZygoteLink) -> TemplateProcess | None:
        return next((each for each in self._by_key.values() if each.link is link), None)

    # The methods below apply time limits.

    def next_due(self) -> float | None:
        """Return the monotonic time by which `do_due` must be called; None if nothing is scheduled."""
        times = (self._due(each) for each in self._by_key.values())
        return min((at for at in times if at is not None), default=None)

    def _due(self, template: TemplateProcess) -> float | None:
        if self._is_idle(template):
            return template.used_at + IDLE_SECONDS
        if template.link.ready:
            return None
        return template.asked_at + (WAIT_SECONDS if template.waiting else IMPORT_SECONDS)

    def do_due(self, now: float) -> list[ChildLink]:
        """End idle templates and imports that hang. Return the runs that have waited too long."""
        released = []
        for template in list(self._by_key.values()):
            due = self._due(template)
            if due is None or now < due:
                continue
            if template.link.ready:
                self._end(template)
            elif template.waiting:
                released += self._released(template, _LATE)
            else:
                self._kill(template)
        return released

    def _kill(self, template: TemplateProcess) -> None:
        """Kill a template whose import takes too long. It reads no frames during its import, so its parent ends it."""
        self._refuse(template, Refusal(reason=f"its import took longer than {IMPORT_SECONDS:g} s"))
        if template.parent is not None and template.parent is self._zygotes.shared:
            self._zygotes.send(template.parent, EndRun(token=template.token))

    def close(self) -> list[ChildLink]:
        """End all templates. Return the runs that wait for them."""
        children = [child for template in self._by_key.values() for child in self._released(template, "")]
        for template in list(self._by_key.values()):
            self._end(template)
        return children


_LATE = f"its import takes longer than {WAIT_SECONDS:g} s"
_DIED = "the process that imported its module was killed or has crashed"


def _key(spec: LaunchSpec, source: TemplateSource) -> TemplateKey:
    return TemplateKey(
        bundle=source.code.bundle.sha256,
        module=source.module,
        threads=spec.threads,
        environment=tuple(sorted(spec.environment.items())),
    )

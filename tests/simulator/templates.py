"""Templates of a simulated launcher: processes that have imported the module of a job, from which attempts are forked.

They follow the rules of `paglets.worker.host.template_pool`, with shorter times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from paglets.core.clock import Entropy
from paglets.worker.launch import LaunchSpec, ProcessExit, TemplateEvents, TemplateSource
from paglets.worker.linux import template_mark
from tests.fakes.clock import FakeClock
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness

FORK_SECONDS = (0.001, 0.02)
IMPORT_SECONDS = (0.05, 1.5)
WAIT_SECONDS = 1.0
"""Time that attempts wait for an import. Some imports take longer."""

IDLE_SECONDS = 10.0
DEAD_SECONDS = 3.0
"""Time after the death of a template for which its attempts import their module themselves."""

REFUSED_OF_10 = 1
"""The number of imports of ten that cannot be in a template."""

Memory = dict[str, str]
"""The variables of a process that user code has set, beside those of the import."""

Key = tuple[str, str, int]


class Run(Protocol):
    """A process of a paglet. `memory` is that of the process from which it was forked."""

    memory: Memory

    def fork(self, pid: int) -> None: ...

    def exit(self, how: ProcessExit) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSeams:
    """The launcher of templates. `is_stored` returns True if the row of the template with a token is committed.

    `later` calls a function after a random time, `fork` starts a process, and `new_pid` returns the pid of a new one.
    """

    clock: FakeClock
    entropy: Entropy
    events: TemplateEvents
    witness: Witness
    is_stored: Callable[[str], bool]
    later: Callable[[tuple[float, float], Callable[[], None]], None]
    fork: Callable[[Run], None]
    new_pid: Callable[[], int]


@dataclass(slots=True, kw_only=True, eq=False)
class Template:
    """A template. `imports`: True once it runs user code. `idle_at`: the time since which it has no run."""

    key: Key
    token: str
    imports: bool = False
    is_ready: bool = False
    over: bool = False
    idle_at: float = 0.0
    memory: Memory = field(default_factory=dict)
    waiting: list[Run] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


class SimTemplates:
    """The templates of one start of a host."""

    def __init__(self, seams: TemplateSeams) -> None:
        self._seams = seams
        self._by_token: dict[str, Template] = {}
        self._refused_until: dict[Key, float] = {}

    def take(self, run: Run, spec: LaunchSpec) -> bool:
        """Start a run from its template, or let it wait for that. Return False if it must start without one."""
        source = spec.template
        if source is None or spec.alone:
            return False
        key = _key(spec, source)
        if self._seams.clock.monotonic() < self._refused_until.get(key, 0.0):
            return False
        template = next((each for each in self._by_token.values() if each.key == key), None) or self._open(spec, key)
        template.waiting.append(run)
        if template.is_ready:
            self._fork_waiting(template)
        else:
            self._in((WAIT_SECONDS, WAIT_SECONDS), template, self._start_late)
        return True

    def _open(self, spec: LaunchSpec, key: Key) -> Template:
        template = Template(key=key, token=template_mark(spec.token))
        self._by_token[template.token] = template
        pid = self._seams.new_pid()
        self._in(FORK_SECONDS, template, partial(self.started, pid=pid))
        return template

    def started(self, template: Template, pid: int) -> None:
        """Report the process of a template. It imports nothing before the host allows that."""
        self._seams.events.started(template.token, pid, float(pid))

    def allow_import(self, token: str) -> None:
        template = self._by_token.get(token)
        if template is not None:
            self.begin_import(template)

    def begin_import(self, template: Template) -> None:
        template.imports = True
        if not self._seams.is_stored(template.token):
            self._seams.witness.violated(f"{template.token} imports a module and its process is not stored")
        self._in(IMPORT_SECONDS, template, self._imported)

    def _imported(self, template: Template) -> None:
        if self._seams.entropy.pick(10) < REFUSED_OF_10:
            self._seams.witness.saw(Seen.NO_TEMPLATE)
            self._refused_until[template.key] = float("inf")
            self._end(template)
            return
        template.is_ready = True
        template.idle_at = self._seams.clock.monotonic()
        self._fork_waiting(template)
        self._in((IDLE_SECONDS, IDLE_SECONDS), template, self._end_if_idle)

    def _fork_waiting(self, template: Template) -> None:
        waiting, template.waiting = template.waiting, []
        for run in waiting:
            self._seams.witness.saw(Seen.TEMPLATE)
            run.memory = self.copied(template.memory)
            template.runs.append(run)
            self._seams.fork(run)

    def copied(self, memory: Memory) -> Memory:
        """Return the memory of a process that is forked from one with this memory."""
        return dict(memory)

    def _start_late(self, template: Template) -> None:
        """Start the runs that have waited too long without their template."""
        if not template.is_ready:
            waiting, template.waiting = template.waiting, []
            for run in waiting:
                self._seams.fork(run)

    def _end_if_idle(self, template: Template) -> None:
        idle = self._seams.clock.monotonic() - template.idle_at
        if not template.runs and idle >= IDLE_SECONDS:
            self._end(template)
        else:
            self._in((IDLE_SECONDS, IDLE_SECONDS), template, self._end_if_idle)

    def ended(self, run: Run) -> None:
        """Forget a run that has ended."""
        for template in self._by_token.values():
            if run in template.waiting:
                template.waiting.remove(run)
            if run in template.runs:
                template.runs.remove(run)
                template.idle_at = self._seams.clock.monotonic()

    def _end(self, template: Template) -> None:
        """End the process of a template. Its runs go on, and those that wait start without it."""
        template.over = True
        del self._by_token[template.token]
        for run in template.waiting:
            self._seams.fork(run)
        self._seams.later(FORK_SECONDS, lambda: self._seams.events.ended(template.token))

    # Faults.

    def end_idle(self) -> None:
        """End the templates without a run, whose memory is needed."""
        for template in list(self._by_token.values()):
            if template.is_ready and not template.runs:
                self._end(template)

    def lose(self, template: Template) -> None:
        """Kill a template. Its runs end with it."""
        self._refused_until[template.key] = self._seams.clock.monotonic() + DEAD_SECONDS
        if template.runs:
            self._seams.witness.saw(Seen.TEMPLATE_DIED)
        for run in list(template.runs):
            run.exit(ProcessExit(launcher_lost=True, launcher_died=True))
        self._end(template)

    def lose_any(self) -> None:
        """Kill a template that has runs, or else any template."""
        templates = [each for each in self._by_token.values() if each.runs] or list(self._by_token.values())
        if templates:
            self.lose(templates[self._seams.entropy.pick(len(templates))])

    def lose_of(self, run: Run) -> bool:
        """Kill the template of a run. Return False if it has none."""
        template = next((each for each in self._by_token.values() if run in each.runs), None)
        if template is not None:
            self.lose(template)
        return template is not None

    def lose_all(self) -> None:
        """End all templates, because the zygote that forked them has died. Attempts that wait start anew."""
        for template in list(self._by_token.values()):
            self._end(template)

    def power_off(self) -> list[str]:
        """Drop all templates without reporting their ends. Return the tokens of those that have run user code."""
        tokens = [each.token for each in self._by_token.values() if each.imports]
        for template in self._by_token.values():
            template.over = True
        self._by_token.clear()
        return tokens

    def _in(self, bounds: tuple[float, float], template: Template, act: Callable[[Template], None]) -> None:
        """Call `act` later, unless the template has ended by then."""

        def act_unless_over() -> None:
            if not template.over:
                act(template)

        self._seams.later(bounds, act_unless_over)


def _key(spec: LaunchSpec, source: TemplateSource) -> Key:
    return source.code.bundle.sha256, source.module, spec.threads

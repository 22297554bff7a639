"""Start the runs of paglets, exchange frames with their processes, and end them.

A run has a process of its own, or is a job of a warm worker. The row of a run (table `runs`) is committed before the
run starts. The pid of its process is committed before the `go` frame is sent. So a restarted host finds and kills every
process that is left. A run ends when the launcher reports its end, not when its pipe is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from paglets.api.slots import Usage
from paglets.codec.strict_json import dumps
from paglets.core.errors import Fenced, PagletsError, StoreTransient, to_wire_error
from paglets.core.failpoints import reach
from paglets.core.record import to_json
from paglets.host.handoff.placer import PlacementDenyList
from paglets.host.jobs.blocked_reasons import BlockedReasons
from paglets.host.jobs.deliveries import Deliveries
from paglets.host.jobs.idle_processes import IdleProcesses
from paglets.host.jobs.lines import Lines
from paglets.host.jobs.operations import HandlerEnd, Operations
from paglets.host.jobs.residents import Residents, can_become_resident
from paglets.host.jobs.run_log import RunLog
from paglets.host.jobs.templates import TemplateRecords
from paglets.host.jobs.workspace import ProcessWorkspace, launch_paths
from paglets.host.messaging.mailbox import Mailbox
from paglets.host.records import backpressure, outcomes, run_repository
from paglets.host.records.delivery import Delivery
from paglets.host.records.outcomes import Attempt, Outcome
from paglets.host.records.run_repository import ClosedRun, Run
from paglets.host.runtime.services import HostServices
from paglets.store.events import record_event
from paglets.worker.launch import HOST_FILES_MISSING, Launcher, LaunchEvents, ProcessExit
from paglets.worker.protocol import Deliver, Fault, Go, Handled

CHECK_TIMEOUTS_SECONDS = 1.0
SAVE_USAGE_SECONDS = 10.0


class Runs:
    """The runner part `runs`, which manages the runs and receives the events of the launcher."""

    name = "runs"

    def __init__(
        self,
        services: HostServices,
        make_launcher: Callable[[LaunchEvents], Launcher],
        mailbox: Mailbox,
        operations: Operations,
        workspace: ProcessWorkspace,
        deny_list: PlacementDenyList,
    ) -> None:
        self._services = services
        self._log = RunLog(services)
        self._mailbox = mailbox
        self._deliveries = Deliveries(services, mailbox)
        self._operations = operations
        self._by_token: dict[str, Run] = {}
        self._by_agent: dict[str, Run] = {}
        self.templates = TemplateRecords(services, lambda token: self.launcher.allow_import(token))
        self._residents = Residents(services, mailbox, self._by_token, self._finish)
        self.launcher = make_launcher(self)
        self.lines = Lines(services.clock, self._by_token, self.launcher)
        self.idle_processes = IdleProcesses(services, self._residents, self.templates, lambda: self.launcher.end_idle())
        self._workspace = workspace
        self._deny_list = deny_list
        self._delayed: list[Callable[[], None]] = []
        self._blocked = BlockedReasons(services, lambda act: self._delayed.append(act))
        self._ground = launch_paths(services)
        mailbox.start_entry = self.start_entry
        mailbox.pump = self.pump
        mailbox.activations = self._residents.activations

    # The methods below start runs.

    def start_entry(self, agent_id: str, entry: str) -> None:
        """Start a process for a hook or for messages if the paglet is on this host and has no process."""
        if not self._workspace.may_start(agent_id):
            return  # The hook or the messages stay due.
        token = self._services.entropy.token()
        now = self._services.clock.wall()
        stamp = self._services.store.write(lambda tx: run_repository.start_run(tx, agent_id, entry, token, now))
        if stamp is not None:
            self.launch(Run(stamp=stamp, entry=entry), cores=(), gpus=())
            self._residents.end_surplus()

    def launch(self, run: Run, cores: tuple[int, ...], gpus: tuple[int, ...], go: Go | None = None) -> None:
        """Start a run whose row is committed. `go`: the frame for a warm worker, sent without waiting for `started`."""
        run.cores, run.started_at = cores, self._services.clock.monotonic()
        self._by_token[run.stamp.token] = run
        self._by_agent[run.agent_id] = run
        self._services.runner.wake(self.name)
        reach("after-grant-before-spawn")
        try:
            spec = self._workspace.spec(run, cores, gpus)
        except (OSError, StoreTransient) as error:
            self.ended(run.stamp.token, self._workspace.not_made(run, error))
            return
        run.work_dir = spec.work_dir
        self.launcher.start(spec)
        if go is not None and spec.worker is not None:
            run.go_sent = True
            self._say_go(run, replace(go, work_dir=spec.work_dir))

    # Events of the launcher. It may call these methods from any thread.

    def started(self, token: str, pid: int, start_time: float) -> None:
        self._services.runner.call_soon(partial(self._started, token, pid, start_time))

    def frame(self, token: str, frame: dict[str, Any]) -> None:
        self._services.runner.call_soon(partial(self._frame, token, frame))

    def sampled(self, token: str, usage: Usage) -> None:
        self._services.runner.call_soon(partial(self._sampled, token, usage))

    def ended(self, token: str, ended: ProcessExit) -> None:
        self._services.runner.call_soon(partial(self._ended, token, ended))

    def start_blocked(self, text: str) -> None:
        self._services.runner.call_soon(partial(self._troubled, text))

    # Handlers of the launcher's events. They are called on the runner.

    def _troubled(self, text: str) -> None:
        self._workspace.launcher_troubled(text)
        self._services.runner.wake("scheduler", "mailbox")

    def _started(self, token: str, pid: int, start_time: float) -> None:
        run = self._by_token.get(token)
        if run is None:
            self.launcher.end(token)
            return
        reach("after-spawn-before-record")
        self._log.debug(run, f"process {pid} started")
        if run.go_sent:
            run.unstored, run.live = (pid, start_time), True
            self.pump(run.agent_id)
            return
        self._services.runner.change(
            lambda tx: run_repository.started(tx, run, pid, start_time, self._ground),
            lambda go: self._send_go(run, go, partial(self._started, token, pid, start_time)),
        )

    def _send_go(self, run: Run, go: Go | BaseException | None, again: Callable[[], None]) -> None:
        if isinstance(go, StoreTransient):
            self._delayed.append(again)
            return
        if not isinstance(go, Go):
            self.launcher.end(run.stamp.token)
            if isinstance(go, BaseException):
                raise go
            return
        self._say_go(run, go)
        run.live = True
        run.may_stay = can_become_resident(run.entry, go)
        self.pump(run.agent_id)

    def _say_go(self, run: Run, go: Go) -> None:
        try:
            self.launcher.send(run.stamp.token, {"go": to_json(go)})
        except PagletsError as error:  # The frame is too large. Without it, the process would wait forever.
            self._end_late(run, f"the process could not get its state and its files: {error.message}")

    def _frame(self, token: str, frame: dict[str, Any]) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        number = frame.get("id")
        try:
            name, args = run_repository.parse_operation(frame, run.stamp)
        except PagletsError as error:
            self._answer(run, number, error)
            self.launcher.end(token)
            return
        if name == "done" and args.fault is not None and args.fault.cause == HOST_FILES_MISSING:
            run.done, run.start_error = True, args.fault.message
            self._answer(run, number, None)
            return
        self._perform(run, number, name, args)

    def _perform(self, run: Run, number: Any, name: str, args: Any) -> None:
        if run.stamp.token not in self._by_token:
            return  # The run ended while the operation was delayed.
        run.is_reporting = run.is_reporting or name == "report"
        run.is_unstored = run.is_unstored or (name == "done" and number is None)
        try:
            self._operations.perform(run, name, args, lambda result: self._performed(run, number, name, args, result))
        except OSError as error:
            self._performed(run, number, name, args, error)
        except Exception as error:
            # Answer with the error, because the process would otherwise wait forever.
            self._answer(run, number, error)
            run.is_unstored = False
            raise

    def _performed(self, run: Run, number: Any, name: str, args: Any, result: Any) -> None:
        result = backpressure.as_host_error(result)
        self._blocked.note(run, backpressure.blocked_by(run, name, args, result))
        retries = backpressure.must_retry(run, name, result)
        run.is_unstored = retries if number is None else run.is_unstored
        if retries:
            # Let the process wait for its answer until a retry succeeds: a full disk of the host must not fail the job.
            self._delayed.append(partial(self._perform, run, number, name, args))
            return
        self._answer(run, number, result)
        if isinstance(result, Fenced):
            self.launcher.end(run.stamp.token)
        elif name == "done":
            run.done = not isinstance(result, BaseException)
            self._note_over(run, run.done)
            if number is None and not run.done:
                run.stop_reason = f"its report was refused: {to_wire_error(result).message}"
            if run.done and args.fault is not None and run.entry == "message" and run.delivered is not None:
                # The class or the state could not be loaded. Fail the message: another process would fail as well.
                self._handled(run, Handled(message_id=run.delivered[0], fault=args.fault), result)
        elif name == "report":
            run.reported = run.is_reporting = not isinstance(result, BaseException)
            self._note_over(run, run.reported)
        elif name == "handled" and not isinstance(result, BaseException):
            self._handled(run, args, result)

    def _note_over(self, run: Run, is_over: bool) -> None:
        if is_over and run.finished_at is None:
            run.finished_at = self._services.clock.monotonic()

    def _answer(self, run: Run, number: Any, result: Any) -> None:
        if number is None:
            return
        if isinstance(result, BaseException):
            frame = {"reply": number, "error": to_wire_error(result).to_wire()}
        else:
            frame = {"reply": number, "ok": to_json(result)}
        self.launcher.send(run.stamp.token, frame)

    def _handled(self, run: Run, args: Handled, end: HandlerEnd) -> None:
        if run.delivered is None or run.delivered[0] != args.message_id:
            return
        _, delivery = run.delivered
        run.delivered = None
        # Do not keep the process of a handler that raised, because the handler may have damaged its memory.
        run.may_stay = run.may_stay and args.fault is None
        self._deliveries.handled(delivery, args, end)
        self.pump(run.agent_id)

    def pump(self, agent_id: str, stay: bool = True) -> bool:
        """Send the next message to the paglet's process. Return False if the paglet has no process.

        If `stay` is False, the process ends soon, because a hook or an action of the paglet is due.
        """
        run = self._by_agent.get(agent_id)
        if run is None:
            return False
        if not stay:
            self._residents.let_leave(run)
        if not run.takes_messages or run.delivered is not None:
            return True
        delivery = self._mailbox.next_delivery(agent_id) if self._residents.takes_more(run) else None
        if delivery is not None:
            self._deliver(run, delivery)
        elif run.entry == "message":
            self._residents.rest(run)
        return True

    def _deliver(self, run: Run, delivery: Delivery) -> None:
        message_id = self._services.entropy.token(8)
        run.idle_since, run.delivered = None, (message_id, delivery)
        deliver = Deliver(
            message_id=message_id,
            message=delivery.message,
            is_call=delivery.call is not None,
            waited_seconds=delivery.waited_seconds,
        )
        self.launcher.send(run.stamp.token, {"deliver": to_json(deliver)})

    def _finish(self, run: Run) -> None:
        run.finishing, run.idle_since = True, None
        self.launcher.send(run.stamp.token, {"finish": True})

    def _sampled(self, token: str, usage: Usage) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        run.usage = usage
        now = self._services.clock.monotonic()
        if now - run.usage_saved >= SAVE_USAGE_SECONDS:
            run.usage_saved = now
            self._services.runner.change(lambda tx: run_repository.set_usage(tx, token, dumps(to_json(usage))))

    def _ended(self, token: str, how: ProcessExit) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        runtime = self.lines.ended(run, how)
        if run.start_error and not how.launcher_lost:
            how = self._workspace.lacking(run.start_error, how)
        self._log.debug(run, f"process ended after {runtime:.3f} s")
        reach("after-exit-before-report")
        self._services.runner.change(
            lambda tx: run_repository.close_run(tx, run, how, runtime, self._services.own, self._services.clock.wall()),
            lambda closed: self._gone(run, how, closed),
        )

    def _gone(self, run: Run, how: ProcessExit, closed: ClosedRun | BaseException) -> None:
        if isinstance(closed, StoreTransient):
            # Retry at the next tick, because the launcher reports each end only once.
            self._delayed.append(partial(self._ended, run.stamp.token, how))
            return
        if isinstance(closed, BaseException):
            raise closed
        self.lines.passed_on(how, closed)
        del self._by_token[run.stamp.token]
        del self._by_agent[run.agent_id]
        self._operations.run_ended(run.stamp.token)
        if run.delivered is not None and run.done:
            # A child starts no handler after `done`, so this message was not handled. Leave it to the next process.
            self._mailbox.requeue(run.delivered[1])
        elif run.delivered is not None:
            self._deliveries.lost(run.delivered[1], how)
        if closed.status == "PLACING":
            self._workspace.leave_full_disk(run.agent_id, self._deny_list)
            self._services.runner.wake("placer")
        if closed.has_work or self._mailbox.has_calls(run.agent_id):
            self._services.runner.wake("mailbox")
        self._services.runner.wake(*(("cleanup",) if run.entry == "attempt" else ("mailbox", "scheduler", "placer")))

    # The methods below check timeouts and cancellations at each tick, and end runs.

    def tick(self, now: float) -> float | None:
        delayed, self._delayed = self._delayed, []
        for act in delayed:
            act()
        self.templates.retry()
        self._store_processes()
        for run in list(self._by_token.values()):
            limit = run_repository.exceeded_limit(run, now, self._services.settings.report_grace_seconds)
            if limit == "timeout":
                self._time_out(run)
            elif limit:
                self._end_late(run, run_repository.limit_text(run, limit, self._services.settings.report_grace_seconds))
        cancelled, known = self._services.store.read(run_repository.cancelled_and_open)
        for agent_id in cancelled:
            if agent_id in self._by_agent:
                self.launcher.end(self._by_agent[agent_id].stamp.token)
        self.idle_processes.end_surplus()
        for token in [token for token in self._by_token if token not in known]:
            # A copy with a higher epoch arrived or ended, and the row of this run was deleted.
            self.launcher.end(token)
        if not self._by_token and not self.idle_processes.exist():
            return None
        return min(now + CHECK_TIMEOUTS_SECONDS, self.lines.take_back(now))

    def _store_processes(self) -> None:
        """Store the process of each run in a warm worker. It may be late: the worker has a row of its own."""
        found = [(run.stamp.token, *run.unstored) for run in self._by_token.values() if run.unstored is not None]
        if found:
            self._services.runner.change(lambda tx: [run_repository.set_process(tx, *each) for each in found])
            for run in self._by_token.values():
                run.unstored = None

    def _end_late(self, run: Run, why: str) -> None:
        run.stop_reason = why
        self._log.warning(run, why)
        self._services.runner.change(
            lambda tx: record_event(tx, self._services.clock.wall(), "ended_late", run.agent_id, f"{run.entry}: {why}")
        )
        self.launcher.end(run.stamp.token)

    def _time_out(self, run: Run) -> None:
        fault = Fault(cause="timeout", message=f"ran longer than timeout_seconds = {run.timeout_seconds:g}")
        limit, run.timeout_seconds = run.timeout_seconds, 0.0
        attempt, outcome = self.attempt_of(run), Outcome(success=False, final=False, fault=fault)
        self._services.runner.change(
            lambda tx: outcomes.commit(tx, attempt, outcome, self._services.clock.wall()),
            lambda result: self._timed_out(run, limit, result),
        )

    def _timed_out(self, run: Run, limit: float, result: object) -> None:
        if isinstance(result, StoreTransient):
            run.timeout_seconds = limit
            return
        self.launcher.end(run.stamp.token)
        if isinstance(result, BaseException):
            raise result

    def attempt_of(self, run: Run) -> Attempt:
        return Attempt(
            agent_id=run.agent_id,
            attempt=run.stamp.attempt,
            host=self._services.own,
            runtime_seconds=self._services.clock.monotonic() - run.started_at,
        )

    def running(self) -> dict[str, Usage]:
        """Return the latest resource usage of each paglet with a run. May be called from any thread."""
        return {run.agent_id: run.usage for run in list(self._by_token.values())}

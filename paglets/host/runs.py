"""The processes of this host: launched, told to go, listened to, ended.

A run is a row (`runs`) before it is a process. Its pid is committed before its `go`, so that a host
that restarts finds and ends every survivor; its end is the exit the launcher tells, never an EOF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from paglets.api import Usage
from paglets.codec.text import dumps, loads
from paglets.core.errors import BadRequest, Fenced, HandlerFailed, PagletsError
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef
from paglets.host import outcomes
from paglets.host.mailbox import Delivery, Mailbox, hook_failed
from paglets.host.operations import Operations, close_delivery
from paglets.host.outcomes import Attempt, Outcome
from paglets.host.shell import Shell
from paglets.store import posts, queue, residence
from paglets.store.db import Tx
from paglets.worker.launch import Ended, Launcher, LaunchEvents, LaunchSpec
from paglets.worker.protocol import LONG_ENTRIES, OPERATIONS, Deliver, Fault, Go, Stamp

CHECK_TIMEOUTS_SECONDS = 1.0
SAVE_USAGE_SECONDS = 10.0


@dataclass(eq=False, kw_only=True)
class Run:
    """A process of a paglet, from launch to end. Belongs to the runner."""

    stamp: Stamp
    entry: str
    timeout_seconds: float = 0.0
    began: float = 0.0
    live: bool = False
    finishing: bool = False
    done: bool = False
    reported: bool = False
    work_dir: str = ""
    delivered: tuple[str, Delivery] | None = None
    usage: Usage = field(default_factory=Usage)
    usage_saved: float = 0.0

    @property
    def agent_id(self) -> str:
        return self.stamp.agent_id

    @property
    def takes_messages(self) -> bool:
        return self.live and not self.finishing and not self.done and (self.entry in (*LONG_ENTRIES, "message"))


class Runs:
    """Part `runs`, and the receiver of the launcher's events."""

    name = "runs"

    def __init__(
        self,
        shell: Shell,
        make_launcher: Callable[[LaunchEvents], Launcher],
        mailbox: Mailbox,
        operations: Operations,
    ) -> None:
        self._shell = shell
        self._mailbox = mailbox
        self._operations = operations
        self._by_token: dict[str, Run] = {}
        self._by_agent: dict[str, Run] = {}
        self.launcher = make_launcher(self)
        mailbox.start_entry = self.start_entry
        mailbox.pump = self.pump
        mailbox.activations = lambda: sum(run.entry != "attempt" for run in self._by_token.values())

    # Start.

    def start_entry(self, agent_id: str, entry: str) -> None:
        """Start a process for a hook or for messages, where the paglet is here and none is at work."""
        token = self._shell.entropy.token()
        stamp = self._shell.store.write(lambda tx: _begin(tx, agent_id, entry, token, self._shell.clock.wall()))
        if stamp is not None:
            self.launch(Run(stamp=stamp, entry=entry), cores=(), gpus=())

    def launch(self, run: Run, cores: tuple[int, ...], gpus: tuple[int, ...]) -> None:
        """Launch the process of a run whose row is committed."""
        run.began = self._shell.clock.monotonic()
        self._by_token[run.stamp.token] = run
        self._by_agent[run.agent_id] = run
        self._shell.runner.wake(self.name)
        try:
            spec = self._spec(run, cores, gpus)
        except OSError as error:
            self.ended(run.stamp.token, Ended(error=f"its scratch directory cannot be made: {error}"))
            return
        run.work_dir = spec.work_dir
        self.launcher.start(spec)

    def _spec(self, run: Run, cores: tuple[int, ...], gpus: tuple[int, ...]) -> LaunchSpec:
        stamp, disk = run.stamp, self._shell.disk
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if run.entry == "attempt" else {}
        return LaunchSpec(
            token=stamp.token,
            agent_id=stamp.agent_id,
            generation=stamp.generation,
            attempt=stamp.attempt,
            work_dir=disk.prepare(stamp.agent_id, fresh=run.entry == "attempt"),
            stdout_path=disk.log_path(stamp.agent_id, stamp.generation, stamp.attempt, "out"),
            stderr_path=disk.log_path(stamp.agent_id, stamp.generation, stamp.attempt, "err"),
            environment=environment,
            cores=cores if self._shell.settings.pin_cpus else (),
        )

    # Events of the launcher: any thread.

    def started(self, token: str, pid: int, start_time: float) -> None:
        self._shell.runner.soon(partial(self._started, token, pid, start_time))

    def frame(self, token: str, frame: dict[str, Any]) -> None:
        self._shell.runner.soon(partial(self._frame, token, frame))

    def sampled(self, token: str, usage: Usage) -> None:
        self._shell.runner.soon(partial(self._sampled, token, usage))

    def ended(self, token: str, ended: Ended) -> None:
        self._shell.runner.soon(partial(self._ended, token, ended))

    # The same, on the runner.

    def _started(self, token: str, pid: int, start_time: float) -> None:
        run = self._by_token.get(token)
        if run is None:
            self.launcher.end(token)
            return
        self._shell.runner.change(
            lambda tx: _go(tx, run, pid, start_time, self._shell.own, self._shell.settings.code_paths),
            lambda go: self._send_go(run, go),
        )

    def _send_go(self, run: Run, go: Go | BaseException | None) -> None:
        if not isinstance(go, Go):
            self.launcher.end(run.stamp.token)
            return
        self.launcher.send(run.stamp.token, {"go": to_json(go)})
        run.live = True
        self.pump(run.agent_id)

    def _frame(self, token: str, frame: dict[str, Any]) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        number = frame.get("id")
        try:
            name, args = _parse(frame, run.stamp)
        except PagletsError as error:
            self._answer(run, number, error)
            self.launcher.end(token)
            return
        self._operations.perform(run, name, args, lambda result: self._performed(run, number, name, args, result))

    def _performed(self, run: Run, number: Any, name: str, args: Any, result: Any) -> None:
        self._answer(run, number, result)
        if isinstance(result, Fenced):
            self.launcher.end(run.stamp.token)
        elif name == "done":
            run.done = not isinstance(result, BaseException)
        elif name == "report":
            run.reported = not isinstance(result, BaseException)
        elif name == "handled" and not isinstance(result, BaseException):
            self._handled(run, args)

    def _answer(self, run: Run, number: Any, result: Any) -> None:
        if isinstance(result, BaseException):
            error = result if isinstance(result, PagletsError) else PagletsError(f"the host failed: {result!r}")
            frame = {"reply": number, "error": error.to_wire()}
        else:
            frame = {"reply": number, "ok": to_json(result)}
        self.launcher.send(run.stamp.token, frame)

    def _handled(self, run: Run, args: Any) -> None:
        if run.delivered is None or run.delivered[0] != args.message_id:
            return
        _, delivery = run.delivered
        run.delivered = None
        close_delivery(self._mailbox, self._shell.store, run.agent_id, delivery, args)
        self.pump(run.agent_id)

    def pump(self, agent_id: str) -> bool:
        """Give the next message to the paglet's process; False where it has none."""
        run = self._by_agent.get(agent_id)
        if run is None:
            return False
        if not run.takes_messages or run.delivered is not None:
            return True
        delivery = self._mailbox.next_delivery(agent_id)
        if delivery is not None:
            message_id = self._shell.entropy.token(8)
            run.delivered = (message_id, delivery)
            deliver = Deliver(
                message_id=message_id,
                message=delivery.message,
                is_call=delivery.call is not None,
                waited_seconds=delivery.waited_seconds,
            )
            self.launcher.send(run.stamp.token, {"deliver": to_json(deliver)})
        elif run.entry == "message":
            run.finishing = True
            self.launcher.send(run.stamp.token, {"finish": True})
        return True

    def _sampled(self, token: str, usage: Usage) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        run.usage = usage
        now = self._shell.clock.monotonic()
        if now - run.usage_saved >= SAVE_USAGE_SECONDS:
            run.usage_saved = now
            self._shell.runner.change(
                lambda tx: tx.run("UPDATE runs SET usage = ? WHERE token = ?", dumps(to_json(usage)), token)
            )

    def _ended(self, token: str, how: Ended) -> None:
        run = self._by_token.get(token)
        if run is None:
            return
        runtime = self._shell.clock.monotonic() - run.began
        self._shell.runner.change(
            lambda tx: _end(tx, run, how, runtime, self._shell.own, self._shell.clock.wall()),
            lambda status: self._gone(run, how, status),
        )

    def _gone(self, run: Run, how: Ended, status: Any) -> None:
        if isinstance(status, BaseException):
            raise status
        del self._by_token[run.stamp.token]
        del self._by_agent[run.agent_id]
        if run.delivered is not None:
            self._delivery_lost(run, run.delivered[1], how)
        if run.entry == "attempt":
            self._shell.runner.wake("janitor")
        self._shell.runner.wake("mailbox", "scheduler", "placer")

    def _delivery_lost(self, run: Run, delivery: Delivery, how: Ended) -> None:
        text = outcomes.describe(how)
        if delivery.call is not None:
            delivery.call.finish(
                HandlerFailed(
                    f"the handler of {delivery.message.kind!r} did not come to its end: {text}",
                    cause=outcomes.cause_of(how),
                    traceback="",
                    stderr_tail=how.stderr_tail,
                )
            )
        elif delivery.seq is not None and not how.launcher_lost:
            seq = delivery.seq
            self._shell.runner.change(lambda tx: posts.raised(tx, seq, text))
            self._mailbox.post_raised(run.agent_id, 1)

    # The part: time-outs and unwanted copies.

    def tick(self, now: float) -> float | None:
        for run in list(self._by_token.values()):
            if run.timeout_seconds and now - run.began > run.timeout_seconds:
                self._time_out(run, now)
        for agent_id in self._shell.store.read(_unwanted):
            self.end(agent_id)
        return now + CHECK_TIMEOUTS_SECONDS if self._by_token else None

    def _time_out(self, run: Run, now: float) -> None:
        fault = Fault(cause="timeout", message=f"ran longer than timeout_seconds = {run.timeout_seconds:g}")
        run.timeout_seconds = 0.0
        attempt = self.attempt_of(run)
        outcome = Outcome(success=False, final=False, fault=fault)
        self._shell.runner.change(
            lambda tx: outcomes.commit(tx, attempt, outcome, self._shell.clock.wall()),
            lambda result: self.launcher.end(run.stamp.token),
        )

    def end(self, agent_id: str) -> bool:
        """End the process tree of this paglet; False where none is at work."""
        run = self._by_agent.get(agent_id)
        if run is None:
            return False
        self.launcher.end(run.stamp.token)
        return True

    def attempt_of(self, run: Run) -> Attempt:
        return Attempt(
            agent_id=run.agent_id,
            attempt=run.stamp.attempt,
            host=self._shell.own,
            runtime_seconds=self._shell.clock.monotonic() - run.began,
        )

    def running(self) -> dict[str, Usage]:
        """Newest usage of each paglet at work; a snapshot, any thread."""
        return {run.agent_id: run.usage for run in list(self._by_token.values())}


def _parse(frame: dict[str, Any], stamp: Stamp) -> tuple[str, Any]:
    name = frame.get("op")
    if name not in OPERATIONS or not isinstance(name, str):
        raise BadRequest(f"unknown operation {str(name)[:60]!r}")
    if from_json(Stamp, frame.get("stamp"), "stamp") != stamp:
        raise Fenced("this run is over: a newer one has taken its place")
    return name, from_json(OPERATIONS[name], frame.get("args"), name)


def _begin(tx: Tx, agent_id: str, entry: str, token: str, now: float) -> Stamp | None:
    row = residence.find(tx, agent_id)
    if row is None or row.status != "here":
        return None
    if tx.value("SELECT 1 FROM runs WHERE agent_id = ?", agent_id) is not None:
        return None
    job = queue.job(tx, agent_id)
    generation, attempt = (job.generation, job.attempt) if job is not None else (1, 0)
    queue.start_run(tx, agent_id, token, entry, row.epoch, generation, attempt, now)
    return Stamp(agent_id=agent_id, epoch=row.epoch, generation=generation, attempt=attempt, token=token)


def _go(tx: Tx, run: Run, pid: int, start_time: float, own: HostRef, code_paths: tuple[str, ...]) -> Go | None:
    """Note the pid; the `go` frame for the child, or None where the run is over."""
    if not tx.run("UPDATE runs SET pid = ?, start_time = ? WHERE token = ?", pid, start_time, run.stamp.token):
        return None
    row = tx.one("SELECT * FROM paglets WHERE agent_id = ?", run.agent_id)
    if row is None:
        return None
    request = tx.one("SELECT * FROM requests WHERE agent_id = ?", run.agent_id)
    state, home = row["state"], from_json(HostRef, loads(row["home"]))
    system: dict[str, Any] = {"home_host_name": home.name, "home_host_url": home.url}
    if request is not None:
        system |= {
            "group_id": request["group_id"] or "",
            "job_key": request["job_key"],
            "generation": request["generation"],
            "attempt": request["attempt"],
            "compute_status": request["status"],
            "compute_fresh": request["checkpoint"] is None,
        }
        if run.entry == "attempt":
            state = request["checkpoint"] or request["submitted_state"]
    return Go(
        stamp=run.stamp,
        class_name=row["class_name"],
        kind=row["kind"],
        entry=run.entry,  # type: ignore[arg-type]
        state=loads(state),
        system=system,
        host=own,
        work_dir=run.work_dir,
        code_paths=code_paths,
    )


def _end(tx: Tx, run: Run, how: Ended, runtime: float, own: HostRef, now: float) -> str | None:
    tx.run("DELETE FROM runs WHERE token = ?", run.stamp.token)
    tx.touch(run.agent_id)
    if run.entry == "attempt":
        attempt = Attempt(agent_id=run.agent_id, attempt=run.stamp.attempt, host=own, runtime_seconds=runtime)
        return outcomes.ended(tx, attempt, how, now)
    if run.entry != "message" and not run.done and not how.launcher_lost:
        hook_failed(tx, run.agent_id, run.entry, outcomes.describe(how), now)
    outcomes.retire(tx, run.agent_id, now)
    return None


def _unwanted(tx: Tx) -> list[str]:
    rows = tx.all("SELECT agent_id FROM requests WHERE unwanted IS NOT NULL AND status = 'RUNNING' ORDER BY agent_id")
    return [row["agent_id"] for row in rows]

"""A real host under virtual time, with an in-memory store, simulated processes and scripted peers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from paglets.api.calls import Call, CallReply
from paglets.api.groups import JobSpec, SubmitGroup
from paglets.api.hosts import Gossip
from paglets.codec.envelope import Envelope, JobPart, WireMessage
from paglets.codec.strict_json import loads
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.host.host import Host
from paglets.host.http.router import Router
from paglets.host.http.routes import ROUTES
from paglets.host.runtime.services import Environment, Settings
from paglets.slots.eligibility import Reason
from paglets.slots.model import PlacementRules, Resources, SlotRequest
from paglets.store.db import Store, Tx
from paglets.store.files import Removal
from paglets.wire.request import Completion, PendingResponse, Request, Response, dump_json
from paglets.worker.protocol import Changes, EntryDone, Handled, Report
from tests.fakes.blobs import MemoryBlobs, MemoryDisk
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.exchange import Answer, TableHost
from tests.fakes.logs import logger_to
from tests.fakes.mesh import member
from tests.fakes.network import LoopNetwork, LoopTransport
from tests.fakes.processes import HandLauncher, HandProcess
from tests.fakes.store import memory_database, store_on
from tests.simulator.seams import ScratchDisk, SteadyMeter
from tests.simulator.sources import SourceFiles

OFFERED = Resources(cpu_cores=4, memory_bytes=8 << 30, temp_storage_bytes=8 << 30, gpus=1)
MOST_STEPS = 20_000
"""The number of steps in one `run` above which the host counts as spinning."""


class RigDisk(ScratchDisk):
    """A simulated disk. `problem` is the error of `prepare`, `held` the reason why no process can start.

    `removed` lists the removed sources of moved files, `too_large` the kept scratch directories beyond the limit.
    `trims` lists the limits of each trim of logs in bytes and attempts, and the attempts whose logs must stay.
    """

    problem: OSError | None = None
    held: Reason | None = None

    def __init__(self) -> None:
        super().__init__({}, SourceFiles())
        self.removed: list[Removal] = []
        self.trims: list[tuple[int, int, frozenset[tuple[str, int, int]]]] = []
        self.too_large: tuple[str, ...] = ()

    def remove_source(self, removal: Removal) -> str:
        self.removed.append(removal)
        return ""

    def trim_logs(
        self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[tuple[str, int, int]]]
    ) -> None:
        self.trims.append((most_bytes, most_attempts, running()))

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, drop: Callable[[tuple[str, ...]], None]
    ) -> None:
        drop(tuple(each for each in newest_first if each in self.too_large))

    def blocked_reason(self) -> Reason | None:
        return self.held

    def prepare(self, agent_id: str, fresh: bool) -> str:
        if self.problem is not None:
            raise self.problem
        return super().prepare(agent_id, fresh)


class Rig:
    """A host under test. `run` runs it; `peer` adds an online host that answers from a table.

    `url` is the address of the host for other hosts, and may change. `beside` is a second rig on the same network:
    both hosts know each other, and `run` of either runs both.
    """

    def __init__(
        self,
        *,
        offered: Resources = OFFERED,
        database: sqlite3.Connection | None = None,
        name: str = "home",
        beside: Rig | None = None,
        **settings: Any,
    ) -> None:
        self.clock = beside.clock if beside else FakeClock()
        self.network = beside.network if beside else LoopNetwork(self.clock, SeededEntropy("network"))
        self.together: list[Rig] = beside.together if beside else []
        self.together.append(self)
        self.disk = RigDisk()
        self.blobs = MemoryBlobs(MemoryDisk(), now=self.clock.monotonic)
        self.log: list[str] = []
        self.steps = 0
        self.store: Store = store_on(database or memory_database())
        self.settings = Settings(
            store_id=f"store-{name}",
            boot_id=f"{name}-1",
            boot_count=1,
            name=name,
            url=f"http://{name}:8765",
            mesh_version="test",
            started_at=0.0,
            offered=offered,
            **settings,
        )
        self.url = self.settings.url
        self.launcher: HandLauncher
        self.host = Host(
            self.settings,
            Environment(
                clock=self.clock,
                entropy=SeededEntropy(name),
                store=self.store,
                disk=self.disk,
                blobs=self.blobs,
                meter=SteadyMeter(offered),
                log=logger_to(self.log.append),
                url=lambda: self.url,
                make_transport=lambda deliver: _OnRunner(self.network.transport(f"store-{name}"), deliver),
                make_launcher=self._make_launcher,
            ),
        )
        self.router = Router(self.host, ROUTES)
        self.closed = self.host.start()
        if beside is not None:
            self._meet(beside)
        self.run()

    def _meet(self, other: Rig) -> None:
        for one, two in ((self, other), (other, self)):
            one.network.join(one.settings.url, one.settings.store_id, one.answer_request)
            row = one.host.gossip.hosts()[0].host
            news = Gossip(mesh_version="test", protocol=row.protocol, hosts=(row,))
            two.host.gossip.receive(news, row.store_id)

    def answer_request(self, request: Request) -> Response:
        """Return the reply that another host gets at once."""
        answer = self.router.handle(request)
        for _ in range(100):
            if isinstance(answer, Response):
                return answer
            if answer.response is not None:
                return answer.response
            self.host.runner.step()
        raise AssertionError(f"{request.method} {request.target} has no answer at once")

    def _make_launcher(self, events: Any) -> HandLauncher:
        self.launcher = HandLauncher(events)
        return self.launcher

    @property
    def own(self) -> HostRef:
        return self.settings.ref

    def run(self, seconds: float = 0.0) -> None:
        """Run the host for this many virtual seconds."""
        end = self.clock.monotonic() + seconds
        for _ in range(MOST_STEPS):
            pauses = [pause for rig in self.together if (pause := rig.host.runner.step()) is not None]
            self.steps += 1
            if 0.0 in pauses:
                continue
            now = self.clock.monotonic()
            due = [now + pause for pause in pauses]
            due += [at for at in (self.clock.next_due(),) if at is not None]
            if not due or min(due) > end:
                self.clock.advance(end - now)
                return
            # Never less than a clock of floats can tell.
            self.clock.advance(max(1e-6, min(due) - now))
        raise AssertionError(f"the host spins: {MOST_STEPS} steps at second {self.clock.monotonic()}")

    def until(self, condition: Callable[[], object], within_seconds: float = 60.0) -> None:
        """Run until the condition holds. Raises AssertionError with the last value."""
        end = self.clock.monotonic() + within_seconds
        while not (seen := condition()):
            if self.clock.monotonic() >= end:
                raise AssertionError(f"not so within {within_seconds:g} virtual seconds; last saw {seen!r}")
            self.run(0.05)

    # Peers.

    def peer(self, name: str, routes: Mapping[str, Answer] | None = None, **row: Any) -> TableHost:
        """Add a host that is online, and answers gossip and `routes`."""
        table = TableHost(name=name)
        beats = iter(range(1, 1_000_000))

        def gossip(body: Any) -> Gossip:
            own = member(name, heartbeat=next(beats), mesh_version="test", **row)
            return Gossip(mesh_version="test", protocol=own.protocol, hosts=(own,))

        table.routes["POST /v1/mesh/gossip"] = gossip
        table.routes.update(routes or {})
        self.network.join(table.ref.url, table.ref.store_id, table.handle)
        self.host.gossip.receive(gossip(None), table.ref.store_id)
        self.run()
        return table

    # Requests.

    def ask(self, method: str, target: str, body: Any = None, sender: str = "") -> Response | PendingResponse:
        """Return the reply of the router."""
        data = b"" if body is None else dump_json(body)
        return self.router.handle(Request(method=method, target=target, body=data, sender=sender))

    def get(self, cls: type, method: str, target: str, body: Any = None, sender: str = "") -> Any:
        """Return the record of an immediate reply. Raises its error."""
        response = self.ask(method, target, body, sender)
        assert isinstance(response, Response), "the reply is still pending"
        return response.parse(cls)

    def call(self, agent_id: str, kind: str, args: dict[str, Any] | None = None, **more: Any) -> Reply:
        """Start a call over the router, whose result arrives in the `Reply`."""
        fields = {"call_id": f"call-{self.steps}-{kind}", "wait_seconds": 60.0} | more
        body = Call(message=WireMessage(kind=kind, args=args or {}), **fields)
        return Reply(self.ask("POST", f"/v1/paglets/{agent_id}/call", body))

    # Rows.

    def value(self, sql: str, *args: Any) -> Any:
        return self.store.read(lambda tx: tx.value(sql, *args))

    def all(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        return self.store.read(lambda tx: [tuple(row) for row in tx.all(sql, *args)])

    def write(self, change: Callable[[Tx], Any]) -> Any:
        return self.store.write(change)

    def now(self) -> float:
        return self.clock.wall()

    # Processes.

    def process(self, agent_id: str) -> HandProcess:
        """Return the newest process of the paglet, after it has started."""
        process = self.launcher.of(agent_id)[-1]
        if not process.heard:
            process.begin()
            self.run()
        return process

    def answer(self, process: HandProcess, op: str, args: Any, **stamp: Any) -> dict[str, Any]:
        """Return the host's reply to a request of the process."""
        number = process.ask(op, args, **stamp)
        self.run()
        return process.reply(number)

    def report(self, process: HandProcess, result: Any = None, **more: Any) -> dict[str, Any]:
        return self.answer(process, "report", Report(success=True, result=result, **more))

    def finish(self, process: HandProcess, **done: Any) -> None:
        """End the entry, and the process with it."""
        assert "ok" in self.answer(process, "done", EntryDone(**done))
        process.exit()
        self.run()

    def handle(self, process: HandProcess, value: Any = None, **handled: Any) -> dict[str, Any]:
        """Finish handling the newest message."""
        message_id = process.deliveries[-1].message_id
        return self.answer(process, "handled", Handled(message_id=message_id, value=value, **handled))

    def state_of(self, agent_id: str) -> Any:
        return loads(self.value("SELECT state FROM paglet_states WHERE agent_id = ?", agent_id))

    def outbox(self) -> list[dict[str, Any]]:
        return [loads(row[0]) for row in self.all("SELECT message FROM outbox_messages ORDER BY n")]

    def faults(self) -> list[str]:
        return [line for line in self.log if "internal error" in line]


class Reply:
    """The result of a call."""

    def __init__(self, answer: Response | PendingResponse) -> None:
        self._answer = answer

    @property
    def response(self) -> Response | None:
        return self._answer.response if isinstance(self._answer, PendingResponse) else self._answer

    @property
    def record(self) -> CallReply:
        """Return the result. Fails if there is none yet; raises its error."""
        response = self.response
        assert response is not None, "the reply is still pending"
        return response.parse(CallReply)

    @property
    def value(self) -> Any:
        return self.record.value

    @property
    def error(self) -> PagletsError:
        try:
            record = self.record
        except PagletsError as error:
            return error
        raise AssertionError(f"no error but {record}")


class _OnRunner:
    """A transport whose completions run on the runner."""

    def __init__(self, inner: LoopTransport, deliver: Callable[[Callable[[], None]], None]) -> None:
        self._inner = inner
        self._deliver = deliver

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        self._inner.send(
            host, request, lambda outcome: self._deliver(lambda: done(outcome)), timeout_seconds=timeout_seconds
        )


# Values.


def host_ref(name: str) -> HostRef:
    return HostRef(store_id=f"store-{name}", name=name, url=f"http://{name}:8765")


def slot_request(**fields: Any) -> SlotRequest:
    size = {name: fields.pop(name) for name in ("memory_bytes", "temp_storage_bytes", "gpus") if name in fields}
    resources = Resources(cpu_cores=fields.pop("cpu_cores", 1), **size)
    rules = PlacementRules(allow_home=True, **fields.pop("rules", {}))
    return SlotRequest(resources=resources, rules=rules, **fields)


def job_part(key: str = "a", **fields: Any) -> JobPart:
    request = fields.pop("request", None) or slot_request()
    values: dict[str, Any] = {
        "group_id": "g1",
        "job_key": key,
        "collector": ProxyRef(agent_id="collector-x", host=host_ref("w1")),
        "generation": 1,
        "attempt": 0,
        "status": "WAITING_FOR_SLOT",
        "request": to_json(request),
        "submitted_state": {"n": 1},
    }
    return JobPart(**(values | fields))


def envelope(agent_id: str = "p1", **fields: Any) -> Envelope:
    values: dict[str, Any] = {
        "agent_id": agent_id,
        "epoch": 1,
        "class_name": "m:C",
        "kind": "job" if fields.get("job") else "paglet",
        "state": {"n": 1},
        "home": host_ref("home"),
        "created_at": 5.0,
        "storage": {},
    }
    return Envelope(**(values | fields))


def job(agent_id: str = "j1", key: str = "a", **fields: Any) -> Envelope:
    """Create a job that waits for a slot."""
    return envelope(agent_id, job=job_part(key, **fields))


def group(*keys: str, group_id: str | None = "g1", request: SlotRequest | None = None, **fields: Any) -> SubmitGroup:
    wish = to_json(request or slot_request())
    jobs = tuple(JobSpec(job_key=key, state={"key": key}, request=wish) for key in keys)
    return SubmitGroup(group_id=group_id, class_name="m:Job", jobs=jobs, **fields)


def state_change(**state: Any) -> Changes:
    return Changes(has_state=True, state=state)

"""The class `Host`, which creates and connects the parts of a host.

It creates no threads, sockets or clocks. Therefore it runs in production (`paglets.host.app`) and in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from paglets.api.calls import Call, CallReply
from paglets.api.hosts import HostIdentity
from paglets.api.limits import MAX_CALL_SECONDS
from paglets.api.slots import JobView, PlacementPreview, Slots
from paglets.codec.envelope import Envelope, WireMessage
from paglets.core.errors import Invalid, PagletsError
from paglets.core.parts import Part
from paglets.core.record import from_json
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.blobs.fetcher import BlobFetcher
from paglets.host.blobs.garbage import GarbageCollector
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.groups.home import HomeGroups
from paglets.host.groups.lost_jobs import LostJobDetector
from paglets.host.groups.reconciliation import StatusReconciliation
from paglets.host.groups.resubmission import Resubmission
from paglets.host.handoff.closed import ClosedHandoffs
from paglets.host.handoff.eviction import DuplicateEvictor
from paglets.host.handoff.in_flight import InFlightTransfers
from paglets.host.handoff.placer import PlacementDenyList, Placer, preview_placement
from paglets.host.handoff.removal import HostRemoval
from paglets.host.handoff.rollback import TransferRollback
from paglets.host.handoff.sender import HandoffTraffic
from paglets.host.jobs.cleanup import Cleanup
from paglets.host.jobs.operations import Operations
from paglets.host.jobs.runs import Runs
from paglets.host.jobs.scheduler import Scheduler
from paglets.host.jobs.stealing import WorkStealing
from paglets.host.jobs.workspace import ProcessWorkspace
from paglets.host.messaging.calls import Calls, OutgoingCall
from paglets.host.messaging.creation import PagletCreation, require_here
from paglets.host.messaging.group_submission import GroupSubmission
from paglets.host.messaging.mailbox import Mailbox
from paglets.host.messaging.outbox import Outbox
from paglets.host.messaging.parked import CollectorCalls, ParkedRequests
from paglets.host.messaging.pending_actions import PendingActions
from paglets.host.network import named_services
from paglets.host.network.diagnostics import MeshDiagnostics
from paglets.host.network.directory import Directory
from paglets.host.network.locator import PagletLocator
from paglets.host.network.relay_transport import RelayTransport
from paglets.host.network.reverse_poller import ReversePoller
from paglets.host.network.reverse_transport import ReverseTransport
from paglets.host.records import templates
from paglets.host.records.delivery import PendingCall
from paglets.host.records.in_host import IN_HOST_CLASSES, HostView
from paglets.host.records.recovery import close_runs
from paglets.host.runtime import status
from paglets.host.runtime.delivery import DeliveryLanes
from paglets.host.runtime.runner import JoiningPart, Runner
from paglets.host.runtime.services import Environment, HostServices, Settings
from paglets.host.runtime.status import HostLoad
from paglets.host.runtime.wakes import ON_BLOB_PUSHED, ON_MESH_CHANGE, PAUSE_SECONDS
from paglets.mesh.gossip import Gossiper
from paglets.mesh.locator import Locator
from paglets.slots import policy
from paglets.slots.model import SlotRequest, check_request
from paglets.store import handoffs, paglets, queue, residence, views
from paglets.store.db import Tx
from paglets.wire.request import PendingResponse, Response, reply, reply_error


class Host:
    """All parts of one host. Call `start` once, then `runner.step` in a loop."""

    def __init__(self, settings: Settings, environment: Environment, *, peers: tuple[str, ...] = ()) -> None:
        self.runner = runner = Runner(environment.store, environment.clock, environment.log)
        self.refused = environment.refused
        self._url = environment.url or (lambda: settings.url)
        self.reverse_transport = self._reverse(settings, environment)
        self.services = services = self._make_services(settings, environment)
        self.gossip = self._gossip(peers)
        self.locator = Locator(
            environment.clock, services.transport, self.gossip.online, runner, on_contact=self.gossip.record_contact
        )
        self.paglet_locator = PagletLocator(services.store, services.own, self.locator)
        self.reverse_poller = ReversePoller(services, self.gossip)
        self._diagnostics = MeshDiagnostics(self.gossip, environment.announce or environment.log.getChild("mesh").info)
        self.host_view = HostView(
            own=settings.ref,
            wall=environment.clock.wall,
            resolve=self.gossip.find,
            hosts=lambda: self.creation.host_infos(),
        )
        self.parked = ParkedRequests(services)
        self.blob_store = BlobStore(services)
        self.blob_pusher = BlobPusher(services, self.gossip, self.blob_store, ON_BLOB_PUSHED)
        self.blob_fetcher = BlobFetcher(services, self.gossip, self.blob_store)
        pending_actions = PendingActions(services, self.gossip, self.host_view, self.blob_pusher)
        self.mailbox = Mailbox(services, self.host_view, pending_actions)
        self.calls = Calls(services, self.gossip, self.paglet_locator, self._call_local)
        self.creation = PagletCreation(services, self.gossip, self.blob_store)
        self.submission = GroupSubmission(services, self.gossip, self.host_view, self.blob_store)
        self.host_removal = HostRemoval(services, self.gossip, self.paglet_locator)
        self.named_services: dict[str, Callable[[WireMessage], Any]] = named_services.table(self)
        self.directory = Directory(services, self.gossip, self.named_services)
        operations = Operations(
            services,
            self.calls,
            self.creation,
            self.submission,
            self.gossip,
            self.blob_store,
            self.blob_fetcher,
            self.directory,
        )
        self._workspace = ProcessWorkspace(services)
        self._deny_list = PlacementDenyList()
        self.runs = Runs(
            services, environment.make_launcher, self.mailbox, operations, self._workspace, self._deny_list
        )
        resubmission = Resubmission(services, self.blob_fetcher, self.blob_store)
        self.lost_jobs = LostJobDetector(services, self.gossip, self.paglet_locator, resubmission)
        self.reconciliation = StatusReconciliation(
            services, self.gossip, self.paglet_locator, self.blob_pusher, self.lost_jobs
        )
        self.scheduler = Scheduler(services, self.runs, self._workspace, self.reconciliation.awaited)
        self.stealing = WorkStealing(services, self.gossip, self.scheduler, self.runs, self.blob_pusher)
        self._collector_calls = CollectorCalls(services, self.host_view, self.parked)

    def _make_services(self, settings: Settings, environment: Environment) -> HostServices:
        return HostServices(
            settings=settings,
            store=environment.store,
            clock=environment.clock,
            entropy=environment.entropy,
            runner=self.runner,
            transport=self.reverse_transport,
            disk=environment.disk,
            blobs=environment.blobs,
            meter=environment.meter,
            log=environment.log,
        )

    def _gossip(self, peers: tuple[str, ...]) -> Gossiper:
        services = self.services
        return Gossiper(
            services.store,
            services.clock,
            services.entropy,
            services.transport,
            status.idle_gossip_row(services.settings),
            lambda: status.gossip_row(self._settings_now(), self.load()),
            peers=peers,
            on_change=ON_MESH_CHANGE,
        )

    def _reverse(self, settings: Settings, environment: Environment) -> ReverseTransport:
        """Return the transport of all parts. It gets `self.gossip` through lambdas, because that is created later."""
        inner = environment.make_transport(self.runner.call_soon)
        relaying = RelayTransport(
            inner,
            own=settings.ref,
            online=lambda: self.gossip.online(),
            seconds_since_seen=lambda store_id: self.gossip.seconds_since_seen(store_id),
            soon=self.runner.call_soon,
        )
        return ReverseTransport(
            inner,
            clock=environment.clock,
            entropy=environment.entropy,
            runner=self.runner,
            own=settings.ref,
            relaying=None if settings.reachable else relaying,
            mesh_host=lambda store_id: self.gossip.by_store(store_id),
            is_online=lambda store_id: self.gossip.is_online(store_id),
            run_in_background=environment.blobs.run_in_background,
        )

    def start(self) -> int:
        """Close the runs that an earlier start left open, and start the parts. Return the number of closed runs.

        The caller must first kill the processes of those runs (`recovery.survivors`).
        """
        services = self.services
        closed = services.store.write(lambda tx: close_runs(tx, services.own, services.clock.wall()))
        services.store.on_commit = self._committed
        in_flight, deny_list = InFlightTransfers(services.store.read(handoffs.keys)), self._deny_list
        lanes = partial(DeliveryLanes, services, self.gossip, self.blob_pusher)
        joining: tuple[JoiningPart, ...] = (
            Placer(services, self.gossip, deny_list, self.lost_jobs.older_goes_on),
            self.scheduler,
            lanes(Outbox(services), self.paglet_locator.locate),
            self.mailbox,
            HomeGroups(services, self.gossip),
        )
        parts: tuple[Part, ...] = (
            self.parked,
            self.gossip,
            self.reverse_transport,
            self.reverse_poller,
            self.locator,
            self.runs,
            *joining,
            lanes(HandoffTraffic(services, self.gossip, self.blob_store, in_flight)),
            ClosedHandoffs(services, self.gossip),
            TransferRollback(services, self.gossip, self.blob_pusher, in_flight, deny_list),
            self.host_removal,
            DuplicateEvictor(services, self.gossip, self.blob_pusher),
            self.blob_pusher,
            self.blob_fetcher,
            self.calls,
            self.reconciliation,
            self.reconciliation.lanes,
            self.lost_jobs,
            self.stealing,
            self._diagnostics,
            Cleanup(services),
            GarbageCollector(services, self.blob_store),
        )
        for part in parts:
            self.runner.add(part, PAUSE_SECONDS.get(part.name, 0.0))
        self.runner.let_join(*joining)
        return closed

    def _committed(self, wakes: tuple[str, ...], touched: tuple[str, ...]) -> None:
        if touched:
            self.parked.touched(touched)
            self.mailbox.touched(touched)
            self.reconciliation.touched(touched)
        self.runner.wake(*wakes)

    # Methods that report the status of the host.

    def load(self) -> HostLoad:
        usage, reason = self.runs.running(), self._workspace.blocked_reason()

        def look(tx: Tx) -> HostLoad:
            return HostLoad(
                blocked_reason="" if reason is None else reason.text,
                free=self.scheduler.free_units(tx, usage).amounts(),
                queued_jobs=queue.count(tx, "WAITING_FOR_SLOT", "ASSIGNED"),
                running_jobs=queue.count(tx, "RUNNING"),
            )

        return self.services.store.read(look)

    def identity(self) -> HostIdentity:
        own, now = self.services.own, self.services.clock.wall()
        hooks, pids = self.services.store.read(lambda tx: (views.long_hooks(tx, own, now), templates.pids(tx)))
        known = status.identity(self._settings_now(), self.load(), now)
        return replace(
            known,
            long_hooks=hooks,
            host_lost_after_seconds=self.services.settings.host_lost_after_seconds,
            templates=len(pids),
            template_bytes=self.services.meter.memory_of(pids),
        )

    def _settings_now(self) -> Settings:
        return replace(self.services.settings, url=self._url())

    def slots(self, limit: int) -> Slots:
        """Return the offered and the free resources of this host, and up to `limit` jobs (see `store.views`)."""
        now = self.services.clock.wall()
        load, usage = self.load(), self.runs.running()

        def look(tx: Tx) -> tuple[tuple[JobView, ...], tuple[JobView, ...], int]:
            here = views.job_views(tx, self.services.own, now, limit)
            leaving = views.leaving_views(tx, now, max(0, limit - len(here)))
            shown = len(here) + len(leaving)
            return here, leaving, shown if shown < limit else views.shown_count(tx)

        here, leaving, all_jobs = self.services.store.read(look)
        settings = self.services.settings
        return Slots(
            host=settings.ref,
            capacity=settings.offered,
            free=load.free,
            tags=settings.tags,
            queued_jobs=load.queued_jobs,
            running_jobs=load.running_jobs,
            all_jobs=all_jobs,
            jobs=(*(replace(job, usage=usage.get(job.agent_id, job.usage)) for job in here), *leaving),
        )

    def verdicts(self, request: SlotRequest) -> PlacementPreview:
        """Return for each known host if it could run a job of this host with this slot request."""
        settings = self.services.settings
        return preview_placement(self.gossip.candidates(), request, settings.store_id, settings.mesh_version)

    def refuse(self, tx: Tx, envelope: Envelope) -> str | None:
        """Return why this host refuses an envelope, or None if it accepts it.

        It refuses a paglet whose name is in use, and a waiting job that is invalid or can never start on this host.
        """
        if envelope.name is not None:
            holder = residence.holder_of(tx, envelope.name)
            if holder is not None and holder != envelope.agent_id:
                return f"a paglet named {envelope.name!r} already exists on this host"
        job = envelope.job
        if job is None or (job.status != "WAITING_FOR_SLOT" and job.status != "PLACING"):
            return None
        try:
            request = check_request(from_json(SlotRequest, job.request, "request"))
        except Invalid as error:
            return f"the job has an invalid request: {error.message}"
        judgement = policy.judge(
            request,
            status.candidate(self.services.settings),
            home_store_id=envelope.home.store_id,
            mesh_version=self.services.settings.mesh_version,
        )
        return judgement.text if judgement.never and envelope.hook is None else None

    # Methods that call paglets on this host.

    def call_here(self, agent_id: str, call: Call, wait_seconds: float) -> Any:
        """Call a paglet of this host. Return the reply, or a PendingResponse. Raises Moved, Moving, Unknown.

        A repeated call gets the stored reply, even if the handler has moved its paglet since.
        """
        class_name = ""
        if not (call.again and self.mailbox.knows(call.call_id)):
            class_name = self.services.store.read(lambda tx: _class_of(tx, agent_id))
        if class_name in IN_HOST_CLASSES:
            return self._collector_calls.call(agent_id, class_name, call, wait_seconds)
        pending = PendingResponse()
        entry = PendingCall(
            call_id=call.call_id,
            agent_id=agent_id,
            message=call.message,
            answer=lambda result: pending.complete(_call_response(result)),
            deadline=self.services.clock.monotonic() + wait_seconds,
        )
        self.runner.call_soon(lambda: self.mailbox.call(entry, call.again))
        return pending

    def _call_local(self, call: OutgoingCall) -> bool:
        """Perform a call of this host whose target is this host or unknown. Pass the result to `Calls.answered`.

        Always return True, because no such call is left to the transport: an error is a result, too.
        """
        body = Call(message=call.message, call_id=call.call_id, again=call.again)
        wait = min(MAX_CALL_SECONDS, max(0.0, call.deadline - self.services.clock.monotonic()))
        try:
            if call.target.agent_id in self.named_services:
                answer: Any = reply(CallReply(value=self.named_services[call.target.agent_id](call.message)))
            else:
                ref = self.services.store.read(lambda tx: self.creation.resolve_paglet(tx, call.target.agent_id))
                answer = self.call_here(ref.agent_id, body, wait)
        except PagletsError as error:
            answer = reply_error(error)
        pending = answer if isinstance(answer, PendingResponse) else PendingResponse()
        if isinstance(answer, Response):
            pending.complete(answer)
        pending.on_complete(lambda response: self.runner.call_soon(lambda: self.calls.answered(call, response)))
        return True


def _class_of(tx: Tx, agent_id: str) -> str:
    require_here(tx, agent_id)
    return paglets.class_of(tx, agent_id)


def _call_response(result: CallReply | PagletsError) -> Response:
    return reply_error(result) if isinstance(result, PagletsError) else reply(result)

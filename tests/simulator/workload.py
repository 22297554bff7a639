"""Actions of users in a run: groups of jobs, paglets that post and move, calls and cancels, all from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from paglets.api.calls import PostMessage
from paglets.api.groups import JobSpec, SubmitGroup
from paglets.api.hosts import ForgetHost
from paglets.api.paglets import CreatePaglet, MovePaglet
from paglets.codec.envelope import WireMessage
from paglets.core.clock import Entropy
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups.keys import collector_id
from paglets.slots.model import PlacementRules, SlotRequest
from tests.fakes.clock import FakeClock
from tests.simulator.callload import CallLoad
from tests.simulator.client import MAX_TRIES, WITHOUT_END, Client
from tests.simulator.counters import COUNTER_CLASS, post_message
from tests.simulator.fileload import FileLoad, kept_id
from tests.simulator.machine import Machine
from tests.simulator.network import LATE_COPY_SECONDS
from tests.simulator.resources import some_resources
from tests.simulator.scripts import (
    FOREVER,
    HOOKS_OF_JOBS,
    JOB_CLASS,
    LEAVES,
    PLANS,
    SUCCEEDS,
)
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness

MANY_LOSSES = 1_000
FORGET_WITHIN_SECONDS = 15.0
MAX_FORGETS = 60
MOVES_TO_GONE = 3
"""The number of paglets that users send to a host after it is gone, before they remove it."""

NOWHERE = "nowhere"
LONG_SECONDS, SHORT_SECONDS = (0.05, 4.0), (0.0, 0.01)
SHORT_JOBS = 4
"""The number of short jobs in place of one long job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The amount of users' work, and the plans of their jobs. `files` is the share of groups with code and inputs.

    `workers` is the share of jobs for warm workers. Most of these jobs request the same resources. `short` is the share
    of groups whose jobs take milliseconds.

    Users only act on the first `stays` machines (0: on all), since others may be lost for good. With `lost_home`, jobs
    that leave with a file still go to the last machine, which is lost and forgotten. Unless `alone_seconds` is 0, one
    more group is submitted on the first machine within this time.
    """

    groups: int = 1
    most_jobs: int = 5
    counters: int = 2
    posts: int = 6
    moves: int = 3
    cancels: int = 1
    calls: int = 2
    job_moves: int = 0
    doomed: int = 1
    twins: int = 0
    files: float = 0.0
    workers: float = 0.0
    short: float = 0.0
    couriers: int = 0
    file_posts: int = 0
    kept: int = 0
    spoils: int = 0
    reruns: int = 0
    plans: tuple[str, ...] = ("success",)
    stays: int = 0
    lost_home: bool = False
    alone_seconds: float = 0.0
    seconds: float = 20.0


@dataclass(slots=True, kw_only=True)
class Group:
    """A submitted group. Unless cancelled, the jobs of the keys `sure` must have a result."""

    submission: SubmitGroup
    home: Machine
    sure: tuple[str, ...]
    acknowledged: bool = False


@dataclass(slots=True, kw_only=True)
class Workload:
    """A plan of all actions. `groups` and `witness` determine the required outcome."""

    load: Load
    entropy: Entropy
    clock: FakeClock
    machines: tuple[Machine, ...]
    client: Client
    witness: Witness
    groups: dict[str, Group] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)
    files: FileLoad = field(init=False)
    calls: CallLoad = field(init=False)
    _some_go: bool = field(init=False)
    _last: Machine = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.machines[-1]
        self._some_go = 0 < self.load.stays < len(self.machines)
        self.machines = self.machines[: self.load.stays or None]
        self.files = FileLoad(self.entropy, self.machines, self.client, self.witness)
        self.calls = CallLoad(self.entropy, self.clock, self.machines, self.client)

    def plan(self) -> None:
        """Schedule all actions of users."""
        load = self.load
        for number in range(load.counters):
            self._at(0.1, 3.0, partial(self._create, f"counter-{number}", None))
        for number in range(load.twins):
            self._at(0.1, 3.0, partial(self._create, f"twin-{number}", "twin"))
        for number in range(load.groups):
            self._at(1.0, load.seconds / 2, partial(self._submit, f"group-{number}"))
        if load.alone_seconds:
            self._at(0.1, load.alone_seconds, partial(self._submit, "group-alone", self.machines[0]))
        for number in range(load.doomed):
            self._at(1.0, load.seconds, partial(self._doom, f"doomed-{number}"))
        for number in range(load.kept):
            self._at(0.2, load.seconds / 2, partial(self.files.keep, number))
        for number in range(load.couriers):
            self._at(1.0, load.seconds / 2, partial(self.files.send_courier, f"courier-{number}"))
        for act, count in (
            (self._post, load.posts),
            (self._move, load.moves),
            (self._cancel_any, load.cancels),
            (self._call, load.calls),
            (self._move_job, load.job_moves),
            (self.files.look_at_hooks, load.reruns),
            (self._drain, load.calls),
            (self._post_file, load.file_posts),
            (self.files.delete, load.kept // 2),
            (self.files.spoil, load.spoils),
            (self._move_courier, load.couriers),
        ):
            for number in range(count):
                self._at(2.0, load.seconds, partial(act, number))

    def _at(self, low: float, high: float, act: Callable[[], None]) -> None:
        self.clock.call_at(self.clock.monotonic() + self.entropy.uniform(low, high), act)

    def _any(self) -> Machine:
        return self.machines[self.entropy.pick(len(self.machines))]

    def _chance(self, share: float) -> bool:
        return self.entropy.uniform(0, 1) < share

    def _ref(self, machine: Machine) -> HostRef:
        return HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)

    def _proxy(self, agent_id: str) -> ProxyRef:
        """Return a proxy whose host hint may be wrong."""
        return ProxyRef(agent_id=agent_id, host=self._ref(self._any()))

    # Groups.

    def _submit(self, group_id: str, alone: Machine | None = None) -> None:
        home = alone or self._any()
        count = 1 + self.entropy.pick(self.load.most_jobs)
        short = bool(self.load.short) and self._chance(self.load.short)
        count *= SHORT_JOBS if short else 1
        jobs, sure = [], []
        for number in range(count):
            key = f"job-{number}"
            plan = self.load.plans[self.entropy.pick(len(self.load.plans))]
            impossible = self._chance(0.05)
            jobs.append(self._job(key, plan, home, impossible, short and self._chance(0.97)))
            if not impossible and (plan in SUCCEEDS or plan == "checkpoint"):
                sure.append(key)
        submission = SubmitGroup(
            group_id=group_id,
            class_name=JOB_CLASS,
            jobs=tuple(jobs),
            collector_host=self._collector_host() if alone is None else alone.name,
            return_home_when_complete=self._chance(0.5),
        )
        if self._chance(self.load.files):
            submission = self.files.with_files(submission)
        group = Group(submission=submission, home=home, sure=tuple(sure))
        self.groups[group_id] = group
        self._send_group(group)
        for job in submission.jobs:
            if job.state["plan"] == [FOREVER]:
                self._at(0.5, 15.0, partial(self.cancel, group_id, job.job_key, WITHOUT_END))
        if self._chance(0.3):
            self._at(0.0, 10.0, lambda: self._send_group(group))

    def _collector_host(self) -> str | None:
        return self._any().name if self._chance(1.0 if self._some_go else 0.3) else None

    def _send_group(self, group: Group) -> None:
        keys = tuple(job.job_key for job in group.submission.jobs)
        group_id = group.submission.group_id
        assert group_id is not None

        def acknowledged(view: Any) -> None:
            group.acknowledged = True
            self.witness.group_acknowledged(group_id, keys)
            if tuple(view["job_keys"]) != keys:
                self.witness.violated(f"{group_id} was acknowledged with other keys: {view['job_keys']}")

        self.files.submit(group.home, group.submission, acknowledged)

    def _job(self, key: str, plan: str, home: Machine, impossible: bool, short: bool) -> JobSpec:
        others = [machine for machine in self.machines if machine is not home]
        chosen = others[self.entropy.pick(len(others))]
        tags = chosen.traits.tags[:1] if self._chance(0.2) else ()
        isolation, resources = some_resources(self.entropy, chosen.traits.offered, self.load.workers)
        request = SlotRequest(
            resources=resources,
            isolation=isolation,
            rules=PlacementRules(
                required_tags=(NOWHERE,) if impossible else tags,
                preferred_tags=self._any().traits.tags[:1] if self._chance(0.2) else (),
                allow_home=self._chance(0.3),
            ),
            placement_timeout_seconds=15.0 if impossible else 0.0,
            timeout_seconds=12.0 if plan == "silent" else 0.0,
            max_attempts=2 if plan == "checkpoint" or self._chance(0.3) else 1,
            max_losses=MANY_LOSSES,
        )
        targets = [to_json(self._proxy(self._counter())) for _ in range(2)] if self.counters else []
        state = {
            "key": key,
            "plan": [plan],
            "seconds": self.entropy.uniform(*(SHORT_SECONDS if short else LONG_SECONDS)),
            "posts": targets,
            "target": to_json(self._ref(self._any())),
            "fetches": [kept_id(number) for number in range(min(2, self.load.kept))],
        }
        if plan == LEAVES:
            state["hooks"] = {hook: how[self.entropy.pick(len(how))] for hook, how in HOOKS_OF_JOBS.items()}
            state["target"] = to_json(self._ref(self._last)) if self.load.lost_home else state["target"]
        return JobSpec(job_key=key, state=state, request=to_json(request))

    def _cancel_any(self, number: int) -> None:
        if not self.groups:
            return
        names = list(self.groups)
        group_id = names[self.entropy.pick(len(names))]
        jobs = self.groups[group_id].submission.jobs
        self.cancel(group_id, jobs[self.entropy.pick(len(jobs))].job_key, MAX_TRIES)

    def cancel(self, group_id: str, key: str, tries: int) -> None:
        """Cancel one job of a group."""

        def cancelled(reply: Any) -> None:
            if not reply["waiting"] and reply["value"]["keys"].get(key) in ("cancelled", "already_cancelled"):
                self.witness.cancel_acknowledged(group_id, key)

        args = {"job_keys": [key], "reason": "planned"}
        self.calls.ask(collector_id(group_id), WireMessage(kind="cancel", args=args), cancelled, tries)

    def _move_job(self, number: int) -> None:
        """Move a job, as a user does who saw it in a list."""
        there = self._any()
        rows = there.rows.all("SELECT agent_id FROM requests ORDER BY agent_id")
        if rows:
            path = f"/v1/paglets/{rows[self.entropy.pick(len(rows))]['agent_id']}/dispatch"
            self.client.ask(there, path, MovePaglet(target=self._any().name), lambda reply: None)

    def _drain(self, number: int) -> None:
        """Call a collector and wait until its group has ended."""
        if not self.groups:
            return
        names = list(self.groups)
        group_id = names[self.entropy.pick(len(names))]

        def drained(reply: Any) -> None:
            if not reply["waiting"] and reply["value"]["pending_count"]:
                self.witness.violated(f"{group_id} was drained with {reply['value']['pending_count']} jobs pending")

        self.calls.ask(collector_id(group_id), WireMessage(kind="drain", args={}), drained)

    # Hosts.

    def forget(self, gone: HostRef, machines: Iterable[Machine]) -> None:
        """Remove a lost host on each of these machines, and send some paglets to it nevertheless.

        Repeat the removal later, since a late message of the lost host may have announced it again.
        """
        for machine in machines:
            for soonest in (0.5, LATE_COPY_SECONDS[1]):
                act = partial(self._forget, machine, gone.store_id, MAX_FORGETS)
                self._at(soonest, soonest + FORGET_WITHIN_SECONDS, act)
        for number in range(MOVES_TO_GONE):
            self._at(0.1, FORGET_WITHIN_SECONDS, partial(self._move_to, f"last-move-{number}", gone))

    def _forget(self, machine: Machine, store_id: str, tries: int) -> None:
        """Remove a store. Repeat this while the host takes it for online."""

        def forgotten(reply: Any) -> None:
            if reply["taken_back"] or reply["moves_dropped"]:
                self.witness.saw(Seen.FORGOTTEN)

        def refused(error: PagletsError) -> None:
            if tries > 1:
                self._at(1.0, 3.0, partial(self._forget, machine, store_id, tries - 1))

        body = ForgetHost(store_id=store_id)
        self.client.ask(machine, "/v1/mesh/forget", body, forgotten, refused=refused, tries=WITHOUT_END)

    # Paglets.

    def _counter(self) -> str:
        return self.counters[self.entropy.pick(len(self.counters))]

    def _create(self, agent_id: str, name: str | None) -> None:
        body = CreatePaglet(agent_id=agent_id, class_name=COUNTER_CLASS, kind="paglet", state={"count": 0}, name=name)

        def created(view: Any) -> None:
            if agent_id not in self.counters:
                self.counters.append(agent_id)
            self.witness.paglet_acknowledged(agent_id)

        self.client.ask(self._any(), "/v1/paglets", body, created)

    def _post(self, number: int) -> None:
        if not self.counters:
            return
        post_id, onward = f"post-{number}", self.entropy.pick(3)
        then = [self._proxy(self._counter()) for _ in range(onward)]
        body = PostMessage(target=self._proxy(self._counter()), message=post_message(post_id, then), token=post_id)
        self.witness.post_tried(post_id)
        self.client.ask(self._any(), "/v1/outbox", body, lambda reply: self.witness.post_acknowledged(post_id, onward))

    def _post_file(self, number: int) -> None:
        if self.counters:
            self.files.post(self._proxy(self._counter()), f"file-post-{number}")

    def _move_courier(self, number: int) -> None:
        path = f"/v1/paglets/courier-{number}/dispatch"
        self.client.ask(self._any(), path, MovePaglet(target=self._any().name), lambda reply: None)

    def _move(self, number: int) -> None:
        if not self.counters:
            return
        agent_id, target = self._counter(), self._any()
        if self._chance(0.5):
            path = f"/v1/paglets/{agent_id}/dispatch"
            self.client.ask(self._any(), path, MovePaglet(target=target.name), lambda reply: None)
            return
        self._post_move(agent_id, f"move-{number}", self._ref(target))

    def _move_to(self, token: str, target: HostRef) -> None:
        if self.counters:
            self._post_move(self._counter(), token, target)

    def _post_move(self, agent_id: str, token: str, target: HostRef) -> None:
        message = WireMessage(kind="move", args={"target": to_json(target)})
        body = PostMessage(target=self._proxy(agent_id), message=message, token=token)
        self.client.ask(self._any(), "/v1/outbox", body, lambda reply: None)

    def _call(self, number: int) -> None:
        if self.counters:
            self.calls.call(self._counter())

    def _doom(self, agent_id: str) -> None:
        """Create a paglet and dispose of it while posts for it are under way."""
        home, other = self._any(), self._any()
        body = CreatePaglet(agent_id=agent_id, class_name=COUNTER_CLASS, kind="paglet", state={"count": 0})
        path = f"/v1/paglets/{agent_id}"

        def post(sender: Machine, number: int) -> None:
            post_id = f"{agent_id}/{number}"
            target = ProxyRef(agent_id=agent_id, host=self._ref(home))
            message = PostMessage(target=target, message=post_message(post_id, []), token=post_id)
            self.client.ask(sender, "/v1/outbox", message, lambda reply: None)

        def created(view: Any) -> None:
            post(home, 0)
            if self._chance(0.5):
                self.client.ask(home, path + "/dispatch", MovePaglet(target=other.name), lambda reply: None)
            self._at(0.5, 8.0, lambda: self.client.ask(home, path, None, disposed, method="DELETE"))

        def disposed(reply: Any) -> None:
            post(home, 1)
            post(other, 2)

        self.client.ask(home, "/v1/paglets", body, created)


ALL_PLANS = tuple(PLANS)

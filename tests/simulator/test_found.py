"""Bugs that the simulator found, each reproduced without a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paglets.api.calls import PostMessage
from paglets.api.groups import JobSpec, SubmitGroup
from paglets.api.hosts import ForgetHost
from paglets.api.paglets import CreatePaglet, MovePaglet
from paglets.codec.envelope import WireMessage
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.slots.model import PlacementRules, Resources, SlotRequest
from paglets.wire.request import Request, Response
from tests.invariants import HANDLED, is_settled
from tests.simulator.counters import COUNTER_CLASS, post_message
from tests.simulator.filescripts import COURIER_CLASS
from tests.simulator.machine import Machine
from tests.simulator.network import Weather
from tests.simulator.profile import calm
from tests.simulator.scripts import JOB_CLASS, SUCCEEDS
from tests.simulator.tampering import Tampering
from tests.simulator.workload import Group
from tests.simulator.world import Simulation


class Story:
    """A mesh without faults in which a test triggers each event."""

    def __init__(self, hosts: int = 2, unreachable: tuple[int, ...] = ()) -> None:
        self.simulation = Simulation(1, profile=replace(calm(hosts), unreachable=unreachable))
        self.simulation.begin()
        self.simulation.advance(3.0)

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.simulation.machines if machine.name == name)

    def ref(self, name: str) -> HostRef:
        machine = self.machine(name)
        return HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)

    def ask(self, at: str, target: str, body: Any, *, method: str = "POST", seconds: float = 3.0) -> list[Any]:
        """Send a request and let time pass. Return the successful replies."""
        replies: list[Any] = []
        client = self.simulation.workload.client
        client.ask(self.machine(at), target, body, replies.append, method=method, tries=1)
        self.simulation.advance(seconds)
        return replies

    def create(self, at: str, agent_id: str, name: str | None = None) -> list[Any]:
        state = {"count": 0}
        body = CreatePaglet(agent_id=agent_id, class_name=COUNTER_CLASS, kind="paglet", state=state, name=name)
        return self.ask(at, "/v1/paglets", body)

    def courier(self, at: str, agent_id: str, hops: tuple[str, ...], seconds: float = 0.5) -> None:
        """Send a paglet along these hosts with a file from each, and let this many seconds pass."""
        state = {"count": 0, "hops": [to_json(self.ref(hop)) for hop in hops], "files": {}}
        body = CreatePaglet(agent_id=agent_id, class_name=COURIER_CLASS, kind="paglet", state=state)
        self.ask(at, "/v1/paglets", body, seconds=seconds)

    def post(self, sender: str, agent_id: str, hint: str, message: WireMessage | None = None) -> None:
        target = ProxyRef(agent_id=agent_id, host=self.ref(hint))
        token = f"post-{len(self.simulation.story)}"
        body = PostMessage(target=target, message=message or post_message(token, []), token=token)
        assert self.ask(sender, "/v1/outbox", body)

    def move(self, at: str, agent_id: str, to: str) -> None:
        self.ask(at, f"/v1/paglets/{agent_id}/dispatch", MovePaglet(target=to))

    def submit(
        self,
        home: str,
        state: dict[str, Any],
        *,
        collector_host: str | None = None,
        rules: PlacementRules | None = None,
        return_home: bool = False,
    ) -> None:
        """Submit a group of one job with a deadline of 15 s to find a host. Without `rules` it runs at home."""
        others = tuple(machine.name for machine in self.simulation.machines if machine.name != home)
        request = SlotRequest(
            resources=Resources(cpu_cores=1),
            rules=rules or PlacementRules(allow_home=True, excluded_names=others),
            placement_timeout_seconds=15.0,
        )
        state = {"key": "job", "seconds": 0.1, "posts": [], "target": None, **state}
        job = JobSpec(job_key="job", state=state, request=to_json(request))
        group = SubmitGroup(
            group_id="group",
            class_name=JOB_CLASS,
            jobs=(job,),
            collector_host=collector_host,
            return_home_when_complete=return_home,
        )
        sure = ("job",) if state["plan"][0] in SUCCEEDS else ()
        self.simulation.workload.groups["group"] = Group(submission=group, home=self.machine(home), sure=sure)
        assert self.ask(home, "/v1/groups", group)

    def depart(self, name: str) -> None:
        """Lose a machine for good."""
        self.simulation.faults.depart(self.machine(name))

    def handled(self, name: str) -> int:
        """Return how many posts the counters of a host have handled."""
        sql = "SELECT count(*) FROM storage WHERE key > ? AND key < ?"
        return int(self.machine(name).rows.value(sql, HANDLED, HANDLED + "~"))

    def status(self, name: str, agent_id: str) -> str:
        return str(self.machine(name).rows.value("SELECT status FROM residence WHERE agent_id = ?", agent_id))

    def until(self, is_so: Callable[[], bool]) -> None:
        """Step the simulation until the condition holds."""
        for _ in range(20_000):
            if is_so():
                return
            self.simulation.clock.step()
        raise AssertionError("the condition never held")

    def end(self) -> None:
        """Check that all guarantees hold and nothing is under way."""
        self.simulation.come_to_rest()
        violations = self.simulation.witness.violations
        assert not violations, f"{violations}\n{self.simulation.story.text()}"
        assert is_settled(self.simulation.hosts)


def test_a_post_with_a_wrong_address_finds_a_paglet_on_the_senders_own_host() -> None:
    # The location was requested from the other hosts only.
    story = Story()
    story.create("h0", "counter")
    story.post("h0", "counter", hint="h1")
    story.end()
    assert story.handled("h0") == 1


def test_posts_to_a_paglet_that_ended_on_the_senders_own_host_are_dropped() -> None:
    story = Story()
    story.create("h0", "counter")
    assert story.ask("h0", "/v1/paglets/counter", None, method="DELETE")
    story.post("h0", "counter", hint="h0")
    story.end()


def test_a_census_finds_the_collector_on_its_own_host_behind_a_wrong_address() -> None:
    # The collector could not be handed over to h1 and stayed at home. A job on h1 still expected it there.
    story = Story()
    story.machine("h1").crash("for the test")
    story.simulation.faults.healed = True  # it stays down until the end
    story.submit("h0", {"plan": ["forever"]}, collector_host="h1")
    story.simulation.advance(30.0)
    collector = story.machine("h0").rows.value("SELECT agent_id FROM paglets WHERE kind = 'collector'")
    assert collector is not None, "the collector came back when its host was not reached"
    story.simulation.workload.cancel("group", "job", tries=10)
    story.end()


def test_a_move_to_where_a_paglet_is_lets_its_posts_go_on() -> None:
    # The move used up the mailbox's turn, and nothing woke it for the post.
    story = Story()
    story.create("h0", "counter")
    client, h0 = story.simulation.workload.client, story.machine("h0")
    target = ProxyRef(agent_id="counter", host=story.ref("h0"))
    for number in range(1, 31):
        post = PostMessage(target=target, message=post_message(f"post-{number}", []), token=f"post-{number}")
        client.ask(h0, "/v1/outbox", post, lambda reply: None)
        client.ask(h0, "/v1/paglets/counter/dispatch", MovePaglet(target="h0"), lambda reply: None)
        story.simulation.advance(1.0)
        assert story.handled("h0") == number
    story.end()


def test_a_finished_job_that_moves_to_where_it_is_is_retired() -> None:
    story = Story()
    story.submit("h0", {"plan": ["moves"], "target": to_json(story.ref("h0"))})
    story.end()


def test_a_paglet_that_waits_for_an_offline_host_handles_its_posts() -> None:
    story = Story(hosts=3)
    story.create("h0", "counter")
    story.simulation.faults.healed = True
    story.machine("h2").crash("for the test")
    story.simulation.advance(60.0)
    story.move("h0", "counter", to="h2")
    story.post("h0", "counter", hint="h0")
    assert story.status("h0", "counter") == "here"
    assert story.handled("h0") == 1
    story.end()
    assert story.status("h2", "counter") == "here"


def test_a_paglet_that_is_leaving_keeps_its_name_until_it_is_gone() -> None:
    # Its target refused it, and another paglet with its name kept it from returning.
    story = Story()
    story.create("h0", "first", name="twin")
    story.create("h1", "second", name="twin")
    story.simulation.network.block(story.machine("h0").store_id, story.machine("h1").store_id)
    story.move("h0", "first", to="h1")
    assert story.status("h0", "first") == "leaving"
    assert not story.create("h0", "third", name="twin")
    story.end()
    assert story.status("h0", "first") == "here"


def test_a_process_is_told_of_an_error_of_its_host() -> None:
    # Making the reply from the error raised an exception, so the process waited forever.
    story = Story()
    nobody = to_json(ProxyRef(agent_id="nobody", host=story.ref("h1")))
    story.submit("h0", {"plan": ["calls"], "posts": [nobody]})
    story.end()


def test_the_end_of_a_process_is_stored_when_the_disk_has_room_again() -> None:
    story = Story()
    story.submit("h0", {"plan": ["exit"], "seconds": 8.0})
    story.machine("h0").fill_disk(12.0)
    story.simulation.advance(12.0)
    story.end()


def test_a_full_disk_of_the_host_is_not_the_failure_of_its_job() -> None:
    story = Story()
    story.submit("h0", {"plan": ["success"], "seconds": 8.0})
    story.machine("h0").fill_disk(12.0)
    story.simulation.advance(12.0)
    story.end()


def test_a_post_that_could_not_be_settled_on_a_full_disk_is_sent_again() -> None:
    story = Story()
    story.create("h1", "counter")
    story.machine("h1").pause(5.0)
    story.post("h0", "counter", hint="h1")
    story.machine("h0").fill_disk(4.0)
    story.simulation.advance(5.0)
    story.end()
    assert story.handled("h1") == 1


def test_a_wall_clock_that_is_set_back_holds_up_no_time_out() -> None:
    story = Story()
    story.submit("h0", {"plan": ["success"]}, rules=PlacementRules(required_tags=("nowhere",)))
    story.simulation.workload.groups["group"].sure = ()
    story.machine("h0").step_wall_clock(-4000.0)
    story.simulation.advance(30.0)
    status = story.machine("h0").rows.value("SELECT count(*) FROM requests WHERE status = 'PLACING'")
    assert status == 0
    story.end()


def test_a_paglet_moves_though_its_target_came_back_while_the_disk_was_full() -> None:
    # A host that comes online wakes waiting work. That wake is lost if its commit fails.
    story = Story()
    story.create("h0", "counter")
    story.machine("h1").pause(30.0)
    story.simulation.advance(20.0)
    story.move("h0", "counter", to="h1")
    story.machine("h0").fill_disk(15.0)
    story.simulation.advance(40.0)
    story.end()
    assert story.machine("h1").rows.value("SELECT count(*) FROM paglets WHERE agent_id = 'counter'") == 1


def couriers_whose_first_replies_are_cut(*hops: str) -> Story:
    """Send six couriers along this path and cut the first replies that acknowledge them to h0."""
    story = Story()
    network = story.simulation.network

    def cut(request: Request, response: Response) -> Response:
        lost = request.target == "/v1/transfers" and request.sender == story.machine("h0").store_id
        network.weather = Weather(cut=1.0 if lost else 0.0)
        return response

    network.tampering = Tampering(filter_reply=cut)
    for number in range(6):
        story.courier(hops[0], f"courier-{number}", hops[1:])
    story.simulation.advance(10.0)
    network.tampering = Tampering()
    return story


def test_a_paglet_back_before_its_departure_is_acknowledged_finds_new_files() -> None:
    # Its old scratch directory remained, with an older file of the same name.
    story = couriers_whose_first_replies_are_cut("h1", "h0", "h1", "h0")
    story.end()


def test_the_source_of_a_file_goes_though_its_paglet_is_back_early() -> None:
    # The rows of the earlier stay were dropped, and with them the pending removal of the source.
    story = couriers_whose_first_replies_are_cut("h0", "h1", "h0")
    moved = [path for path, source in story.simulation.witness.sources.items() if source.arrived]
    assert moved
    story.end()


def test_files_go_to_a_host_that_was_not_reached_while_the_disk_was_full() -> None:
    # The failure to reach the host could not be stored, so its queue counted as busy forever.
    story = Story()
    story.simulation.network.block(story.machine("h0").store_id, story.machine("h1").store_id)
    story.courier("h0", "courier", ("h1",), seconds=0.0)
    story.until(lambda: "POST /v1/blobs/state -> h1: blocked" in story.simulation.story.text())
    story.machine("h0").fill_disk(4.0)
    story.simulation.advance(6.0)
    story.end()
    assert story.status("h1", "courier") == "here"


def test_a_file_is_published_though_the_disk_is_full_when_its_row_is_written() -> None:
    # The first request had renamed the staged file. When repeated, the host no longer found it.
    story = Story()
    story.submit("h0", {"plan": ["artifact"], "seconds": 8.0})
    h0 = story.machine("h0")
    story.until(lambda: bool(h0.bytes.staged))
    h0.fill_disk(3.0)
    story.simulation.advance(5.0)
    story.end()


def test_a_job_sent_to_a_lost_host_ends_though_its_collector_went_home() -> None:
    # Its envelope named the collector's old host, which kept replying that the collector had moved.
    story = Story(hosts=3)
    story.simulation.network.open_hole(story.machine("h2").store_id)
    rules = PlacementRules(preferred_tags=("tag0",))
    story.submit("h0", {"plan": ["success"]}, collector_host="h1", rules=rules, return_home=True)
    problem = "SELECT count(*) FROM handoffs WHERE kind = 'job' AND problem != ''"
    story.until(lambda: story.machine("h0").rows.value(problem) == 1)
    story.depart("h2")
    story.end()
    assert story.machine("h0").rows.value("SELECT count(*) FROM paglets WHERE kind = 'collector'") == 1


def test_a_paglet_that_is_sent_to_a_host_after_that_was_forgotten_stays_where_it_is() -> None:
    # Only moves requested earlier were dropped.
    story = Story(hosts=3)
    story.create("h0", "counter")
    gone = story.ref("h2")
    story.depart("h2")
    story.simulation.advance(15.0)
    assert story.ask("h0", "/v1/mesh/forget", ForgetHost(store_id=gone.store_id))
    story.post("h0", "counter", hint="h0", message=WireMessage(kind="move", args={"target": to_json(gone)}))
    story.end()
    assert story.status("h0", "counter") == "here"


def test_a_host_that_nobody_can_connect_to_is_reached_after_it_began_anew() -> None:
    # A name conflict made all others count as offline. Its end did not wake the pulls.
    story = Story(hosts=3, unreachable=(2,))
    story.create("h0", "counter")
    story.simulation.faults.healed = True
    story.simulation.faults.wiped(story.machine("h2"))
    story.machine("h2").start()
    story.simulation.advance(60.0)
    story.move("h0", "counter", to="h2")
    story.simulation.advance(10.0)
    assert story.status("h2", "counter") == "here"
    story.end()

"""A COMMIT to the disk takes about a millisecond, and a job waits for each one: so steps that follow share a COMMIT."""

from __future__ import annotations

from host_rig import Rig, group

from paglets.api.groups import GroupView
from paglets.groups.keys import collector_id
from paglets.slots.model import PlacementRules, Resources, SlotRequest

COLLECTOR = collector_id("g1")


class Commits:
    """The COMMITs of a host. `since` returns how many there were since its last call."""

    def __init__(self, rig: Rig) -> None:
        self._count = 0
        self._inner = rig.store.on_commit
        rig.store.on_commit = self._note

    def _note(self, wakes: tuple[str, ...], touched: tuple[str, ...]) -> None:
        self._count += 1
        self._inner(wakes, touched)

    def since(self) -> int:
        count, self._count = self._count, 0
        return count


def status(rig: Rig) -> str:
    return str(rig.value("SELECT status FROM requests WHERE job_key = 'a'"))


def ended(rig: Rig) -> int:
    reply = rig.call(COLLECTOR, "counts")
    rig.run()
    return int(reply.record.value["completed_count"])


def test_a_job_on_one_host_is_submitted_placed_and_granted_in_one_commit() -> None:
    rig = Rig()
    commits = Commits(rig)
    rig.get(GroupView, "POST", "/v1/groups", group("a"))
    assert (commits.since(), status(rig)) == (1, "RUNNING")


def test_a_report_reaches_a_collector_of_the_same_host_in_the_commit_that_stores_it() -> None:
    rig = Rig()
    rig.get(GroupView, "POST", "/v1/groups", group("a"))
    rig.run()
    agent_id = rig.value("SELECT agent_id FROM requests WHERE job_key = 'a'")
    process = rig.process(agent_id)
    commits = Commits(rig)
    rig.report(process, {"value": 1})
    assert (commits.since(), ended(rig)) == (1, 1)
    rig.finish(process)
    assert rig.value("SELECT 1 FROM paglets WHERE agent_id = ?", agent_id) is None


def test_a_job_that_comes_with_its_collector_is_granted_in_the_commit_that_takes_both() -> None:
    home = Rig()
    worker = Rig(name="w", beside=home, tags=("worker",))
    home.run()
    at_home, at_worker = Commits(home), Commits(worker)
    request = SlotRequest(resources=Resources(cpu_cores=1), rules=PlacementRules(required_tags=("worker",)))
    home.get(GroupView, "POST", "/v1/groups", group("a", request=request, collector_host="w"))
    assert at_home.since() == 1
    home.until(lambda: status(worker) == "RUNNING")
    assert at_worker.since() == 1

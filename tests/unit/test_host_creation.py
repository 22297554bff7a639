"""New paglets and groups: stored whole or not at all, and once however often they are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, group, host_ref, slot_request, state_change

from paglets.api.groups import GroupView, JobSpec, SubmitGroup
from paglets.api.paglets import CreatePaglet, Locate, Located, Paglets, PagletView
from paglets.core.errors import Conflict, GroupExists, Invalid, Moved, NameTaken, PagletsError, Unknown
from paglets.core.record import to_json
from paglets.core.refs import FileRef
from paglets.groups.keys import collector_id
from paglets.host.messaging.group_submission import MOST_OBSTACLES
from paglets.store import paglets, residence
from paglets.store.db import Tx

TOKENS = ("ab" * 16, "cd" * 16, "ef" * 16)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def submit(rig: Rig, what: SubmitGroup, token: str = TOKENS[0]) -> GroupView:
    view: GroupView = rig.write(lambda tx: rig.host.submission.submit(tx, token, what))
    return view


def rows(rig: Rig) -> list[Any]:
    return [
        rig.all(f"SELECT * FROM {table} ORDER BY 1")
        for table in ("residence", "paglets", "storage", "requests", "groups")
    ]


# Groups.


def test_the_rows_of_a_groups_jobs_are_those_of_paglets_that_are_made_one_by_one(rig: Rig) -> None:
    submit(rig, group("a"))
    tables = ("residence", "paglets", "paglet_states", "requests", "job_states", "files")

    def stored() -> list[list[tuple[Any, ...]]]:
        return [rig.all(f"SELECT * FROM {table} WHERE agent_id LIKE 'abab%'") for table in tables]

    many = stored()
    (agent_id,) = (row[0] for row in many[0])
    one = rig.write(lambda tx: paglets.freeze(tx, agent_id, 1, rig.now()))

    def again(tx: Tx) -> None:
        residence.dispose(tx, agent_id, rig.now())
        tx.run("DELETE FROM residence WHERE agent_id = ?", agent_id)
        residence.create(tx, one, rig.now())

    rig.write(again)
    assert stored() == many


def test_a_group_is_its_collector_its_keys_and_its_jobs(rig: Rig) -> None:
    view = submit(rig, group("a", "", "c"))
    assert view.job_keys == ("a", "job-00002", "c")
    assert (view.creation_errors, view.collector.agent_id) == ((), collector_id("g1"))
    assert rig.all("SELECT job_key, status, generation, attempt FROM requests ORDER BY job_key") == [
        ("a", "PLACING", 1, 0),
        ("c", "PLACING", 1, 0),
        ("job-00002", "PLACING", 1, 0),
    ]
    assert rig.state_of(collector_id("g1"))["expected_count"] == 3
    views = rig.get(Paglets, "GET", "/v1/paglets?brief=1").paglets
    assert sorted((each.kind, each.group_id) for each in views) == [("collector", "g1"), *[("job", "g1")] * 3]


def test_the_same_group_once_more_is_the_same_group_and_changes_nothing(rig: Rig) -> None:
    first = submit(rig, group("a", "b"))
    before = rows(rig)
    assert submit(rig, group("a", "b"), TOKENS[1]) == replace(first, was_there=True)
    # Whatever the order of its jobs, and whatever was asked of the way.
    again = group("b", "a", return_home_when_complete=True)
    assert submit(rig, again, TOKENS[1]).group_id == "g1"
    assert rows(rig) == before


@pytest.mark.parametrize(
    "other",
    [
        group("a"),
        group("a", "c"),
        replace(group("a", "b"), class_name="m:Other"),
        replace(group("a", "b"), jobs=tuple(replace(job, state={"n": 2}) for job in group("a", "b").jobs)),
    ],
    ids=["fewer jobs", "another key", "another class", "other states"],
)
def test_another_group_under_the_same_id_is_refused(rig: Rig, other: SubmitGroup) -> None:
    submit(rig, group("a", "b"))
    before = rows(rig)
    with pytest.raises(GroupExists):
        submit(rig, other, TOKENS[1])
    assert rows(rig) == before


def test_other_code_or_inputs_under_the_same_id_are_told_and_change_nothing(rig: Rig) -> None:
    first, other = (rig.host.blob_store.put(data) for data in (b"code", b"other"))
    file, changed = (FileRef(name="x", sha256=blob.sha256, size_bytes=blob.size_bytes) for blob in (first, other))
    plain = group("a", "b")
    with_code, with_files = replace(plain, bundle=first), replace(plain, bundle=first, inputs=(file,))
    moved = replace(plain.jobs[0], inputs=(file,))
    of_one_job = replace(with_code, jobs=(moved, plain.jobs[1]))
    submit(rig, with_files)
    before = rows(rig)
    assert submit(rig, with_files).differs == ()
    for again, differs in (
        (plain, ("code", "inputs")),
        (with_code, ("inputs",)),
        (replace(with_files, bundle=other), ("code",)),
        (replace(with_files, inputs=(changed,)), ("inputs",)),
        (of_one_job, ("inputs",)),
    ):
        view = submit(rig, again)
        assert (view.was_there, view.differs) == (True, differs)
    assert rows(rig) == before


def test_what_an_older_program_stored_is_not_compared(rig: Rig) -> None:
    submit(rig, group("a"))
    rig.write(lambda tx: tx.run("UPDATE groups SET code = NULL, inputs = NULL"))
    assert submit(rig, replace(group("a"), bundle=rig.host.blob_store.put(b"code"))).differs == ()


def test_a_group_without_jobs_is_complete_at_once(rig: Rig) -> None:
    assert submit(rig, group()).status == "COMPLETE"


@pytest.mark.parametrize("keys", [("a", "a"), ("job-00002", ""), ("$x",), ("a\n",), ("x" * 201,)])
def test_keys_that_are_equal_or_malformed_store_nothing(rig: Rig, keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="job key"):
        submit(rig, group(*keys))
    assert rows(rig) == [[]] * 5


@pytest.mark.parametrize("group_id", ["../x", "a b", "-x", "x" * 101])
def test_a_malformed_id_stores_nothing(rig: Rig, group_id: str) -> None:
    with pytest.raises(Invalid):
        submit(rig, group("a", group_id=group_id))
    assert rows(rig) == [[]] * 5


def test_a_group_without_an_id_is_given_one_by_its_token(rig: Rig) -> None:
    first = submit(rig, group("a", group_id=None))
    assert submit(rig, group("a", group_id=None)).group_id == first.group_id
    assert submit(rig, group("a", group_id=None), TOKENS[1]).group_id != first.group_id


def test_a_job_that_cannot_be_is_a_failure_of_the_group_from_the_start(rig: Rig) -> None:
    good = to_json(slot_request())
    bad_cores = {**good, "resources": {**good["resources"], "cpu_cores": 0}}
    jobs = (
        JobSpec(job_key="a", state={}, request=good),
        JobSpec(job_key="b", state={}, request=None, error="cpu_cores is a string"),
        JobSpec(job_key="c", state={}, request=bad_cores),
        JobSpec(job_key="d", state={}, request={**good, "colour": "red"}),
        JobSpec(job_key="e", state={}, request=None),
    )
    view = submit(rig, replace(group(), jobs=jobs))
    assert [error.job_key for error in view.creation_errors] == ["b", "c", "d", "e"]
    assert "cpu_cores" in view.creation_errors[1].message
    found = rig.call(collector_id("g1"), "summary").value
    assert {key: row["cause"] for key, row in found["failures"].items()} == dict.fromkeys("bcde", "invalid")
    assert (found["failed_count"], found["pending_count"]) == (4, 1)
    assert rig.value("SELECT count(*) FROM requests") == 1


def test_a_group_without_jobs_is_complete_at_once_and_stays(rig: Rig) -> None:
    rig.peer("w1")
    submit(rig, group())
    assert rig.state_of(collector_id("g1"))["status"] == "COMPLETE"


def test_the_collector_goes_to_the_host_that_runs_longest_and_the_jobs_know_it(rig: Rig) -> None:
    rig.peer("w1", started_at=50.0)
    rig.peer("w2", started_at=20.0)
    rig.peer("w3", started_at=10.0, reachable=False)
    view = submit(rig, group("a"))
    assert view.collector.host.name == "w2"
    assert rig.value("SELECT status FROM residence WHERE agent_id = ?", collector_id("g1")) == "leaving"
    assert '"store-w2"' in rig.value("SELECT collector FROM requests")


def test_a_collector_of_a_users_class_arrives_with_its_keys_and_a_call_waits_for_them(rig: Rig) -> None:
    away, agent_id = Rig(name="away", beside=rig), collector_id("g1")
    submit(rig, group("a", collector_class="m:Own", collector_host="away"))
    rig.until(lambda: away.value("SELECT 1 FROM residence WHERE agent_id = ? AND status = 'here'", agent_id))
    drain = away.call(agent_id, "drain")
    assert away.all("SELECT json_extract(message, '$.kind') FROM inbox") == [("begin",)]

    process = away.process(agent_id)
    away.handle(process, parked=True)
    away.handle(process, changes=state_change(expected_count=1))
    away.handle(process, value="whole")
    handled = [delivery.message.kind for delivery in process.deliveries]
    assert (handled, drain.value) == (["drain", "begin", "drain"], "whole")


def test_the_collector_goes_where_it_was_asked_to(rig: Rig) -> None:
    rig.peer("w1", started_at=50.0)
    rig.peer("w2", started_at=20.0)
    assert submit(rig, group("a", collector_host="w1")).collector.host.name == "w1"
    assert (
        submit(rig, group("a", group_id="g2", collector_host="http://w1:8765"), TOKENS[1]).collector.host.name == "w1"
    )
    assert submit(rig, group("a", group_id="g3", collector_host="home"), TOKENS[2]).collector.host.name == "home"
    with pytest.raises(Unknown, match="there are"):
        submit(rig, group("a", group_id="g4", collector_host="w9"))
    assert rig.value("SELECT count(*) FROM groups") == 3


def test_jobs_that_no_host_can_take_are_warned_of_once_for_each_reason(rig: Rig) -> None:
    wish = slot_request(rules={"required_tags": ("fast",)})
    view = submit(rig, group("a", "b", "c", request=wish))
    assert [(each.count, each.code, each.never) for each in view.obstacles] == [(3, "tag_missing", True)]
    assert submit(rig, group("x", group_id="g2"), TOKENS[1]).obstacles == ()


def test_a_group_keeps_few_of_the_reasons_however_many_different_jobs_it_has(rig: Rig) -> None:
    wishes = [slot_request(cpu_cores=1000 + number) for number in range(100)]
    wishes += [slot_request(rules={"required_tags": (f"tag-{number}",)}) for number in range(100)]
    wishes.append(wishes[0])
    jobs = tuple(JobSpec(job_key=f"k{n}", state={}, request=to_json(wish)) for n, wish in enumerate(wishes))
    view = submit(rig, replace(group(), jobs=jobs))
    assert len(view.obstacles) == MOST_OBSTACLES + 2
    assert (view.obstacles[0].count, sum(each.count for each in view.obstacles)) == (2, len(jobs))
    assert [(each.code, each.count) for each in view.obstacles[-2:]] == [("too_large", 80), ("tag_missing", 100)]
    assert view.obstacles[-1].text == "no host has the tag 'tag-0'; none has any tag (for example)"


def test_ids_of_jobs_are_never_shared_between_submissions(rig: Rig) -> None:
    submit(rig, group("a"))
    with pytest.raises(Conflict):
        submit(rig, group("a", group_id="g2"))
    assert rig.value("SELECT count(*) FROM groups") == 1
    assert rig.value("SELECT count(*) FROM residence") == 2


def test_a_group_that_was_forgotten_here_and_whose_collector_is_known_is_refused(rig: Rig) -> None:
    submit(rig, group("a"))
    rig.write(lambda tx: tx.run("DELETE FROM groups"))
    with pytest.raises(GroupExists, match="known to this host before"):
        submit(rig, group("a"), TOKENS[1])


def test_the_host_of_a_collector_tells_the_class_of_the_jobs_as_home_does(rig: Rig) -> None:
    wanted = group("a")
    submit(rig, wanted)
    rig.write(lambda tx: tx.run("DELETE FROM groups"))
    found: GroupView = rig.get(GroupView, "GET", "/v1/groups/g1")
    assert (found.class_name, found.job_keys) == (wanted.class_name, ())


# Paglets.


def create(agent_id: str = "p1", **fields: Any) -> CreatePaglet:
    return CreatePaglet(agent_id=agent_id, class_name="m:C", kind=fields.pop("kind", "paglet"), state={}, **fields)


def post(rig: Rig, new: CreatePaglet) -> PagletView:
    view: PagletView = rig.get(PagletView, "POST", "/v1/paglets", new)
    return view


def test_a_paglet_is_created_once_and_its_hook_is_due(rig: Rig) -> None:
    assert post(rig, create(name="bob")).hook == "creation"
    assert post(rig, create(name="bob")).agent_id == "p1"
    assert rig.value("SELECT count(*) FROM paglets") == 1


def test_a_repeat_after_the_paglet_moved_says_where_it_is(rig: Rig) -> None:
    post(rig, create())
    rig.write(lambda tx: residence.leave(tx, "p1", host_ref("w1"), rig.now()))
    rig.write(lambda tx: residence.acknowledged(tx, "p1", 2, rig.now()))
    with pytest.raises(Moved):
        post(rig, create())


def test_a_name_belongs_to_one_paglet(rig: Rig) -> None:
    post(rig, create(name="bob"))
    with pytest.raises(NameTaken, match="bob"):
        post(rig, create("p2", name="bob"))


@pytest.mark.parametrize(
    "new",
    [
        create("../p1"),
        create("P1"),
        create("con.x"),
        create(kind="collector"),
        create(kind="job"),
        create(kind="job", request={}),
        create(kind="job", request=to_json(slot_request(cpu_cores=0))),
        create(kind="job", request=to_json(slot_request(memory_bytes=-1))),
    ],
)
def test_a_paglet_that_cannot_be_is_refused_and_not_stored(rig: Rig, new: CreatePaglet) -> None:
    with pytest.raises(PagletsError):
        post(rig, new)
    assert rows(rig) == [[]] * 5


def test_a_job_without_a_group_goes_into_the_queue(rig: Rig) -> None:
    view = post(rig, create(kind="job", request=to_json(slot_request())))
    assert view.job is not None
    assert (view.hook, view.job.status, view.job.group_id) == (None, "PLACING", None)


def test_a_paglet_is_found_by_id_and_by_name(rig: Rig) -> None:
    post(rig, create(name="bob"))
    find = rig.host.creation.resolve_paglet
    for target in ("p1", "bob"):
        assert rig.store.read(lambda tx, target=target: find(tx, target)).agent_id == "p1"
    with pytest.raises(Unknown, match="by id or name"):
        rig.store.read(lambda tx: find(tx, "nobody"))


def test_locate_tells_of_paglets_that_are_here(rig: Rig) -> None:
    post(rig, create())
    asked = Locate(agent_ids=("p1", "p2"))
    found: Located = rig.get(Located, "POST", "/v1/paglets/locate", asked)
    assert [(row.agent_id, row.status) for row in found.rows] == [("p1", "here")]

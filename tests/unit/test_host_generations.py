"""What becomes of a job whose copy is lost: a further one is made, or the collector is told why there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from host_rig import Rig, group, slot_request
from test_host_losses import COLLECTOR, NOT_HERE, Worker, failures, pending, report, started

from paglets.api.blobs import BlobState, BlobStates
from paglets.api.groups import GroupView
from paglets.codec.strict_json import dumps
from paglets.core.refs import FileRef
from paglets.store import paglets


def in_child(rig: Rig) -> None:
    """The collector is of a class of a user, and its process takes nothing."""
    rig.write(lambda tx: tx.run("UPDATE paglets SET class_name = 'm:Own' WHERE agent_id = ?", COLLECTOR))


def lies_in_inbox(rig: Rig, key: str, status: str, error: str = "") -> None:
    message = {"kind": "job_result", "args": {"job_key": key, "generation": 1}}
    rig.write(
        lambda tx: tx.run(
            "INSERT INTO inbox (agent_id, sender_store, n, message, status, error)"
            " VALUES (?, 's', (SELECT count(*) + 1 FROM inbox), ?, ?, ?)",
            COLLECTOR,
            dumps(message),
            status,
            error,
        )
    )


# Reports that have come and are not taken.


def test_a_report_that_lies_in_the_inbox_is_waited_for_and_others_are_not() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    worker = started(rig, "a", "b")
    worker.tell()
    worker.cut_off()
    second = Worker(rig, "w2")
    in_child(rig)
    lies_in_inbox(rig, "a", "waiting")
    rig.run(300.0)
    assert second.keys() == [("b", 2)]


def test_a_job_whose_report_the_collector_cannot_take_is_not_begun_anew() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    worker = started(rig, "a")
    worker.tell()
    lies_in_inbox(rig, "a", "dead", "ValueError('mine')")
    worker.lists = False  # it was acknowledged, so the copy is gone
    rig.until(lambda: pending(rig)["a"]["reason"] == "report_failed", 120.0)
    assert pending(rig)["a"]["reason_text"].endswith("the collector could not take it: ValueError('mine')")
    rig.run(200.0)
    assert worker.keys() == [("a", 1)]


def test_a_failure_that_the_collector_cannot_take_is_posted_once() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=replace(NOT_HERE, max_losses=0)))
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1)])
    worker.cut_off()
    in_child(rig)
    for _ in range(30):
        rig.run(10.0)
        rig.write(lambda tx: tx.run("UPDATE inbox SET status = 'dead'"))
    assert rig.value("SELECT count(*) FROM inbox") == 1


# How often.


def begun_twice(rig: Rig) -> tuple[Worker, Worker]:
    """A job that may be lost once: its first host is cut off, and the second one has told of its copy."""
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=replace(NOT_HERE, max_losses=1)))
    first = Worker(rig, "w1")
    rig.until(lambda: first.keys() == [("a", 1)])
    first.cut_off()
    rig.run(15.0)
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("a", 2)])
    second.tell()
    return first, second


def test_max_losses_bounds_how_often_a_job_is_begun_anew() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    _, second = begun_twice(rig)
    second.cut_off()
    rig.until(lambda: "a" in failures(rig))
    failure = failures(rig)["a"]
    assert (failure["cause"], failure["generation"], failure["host_name"]) == ("host_lost", 2, "w2")
    assert failure["message"] == "lost 2 times with its host, last on w2; max_losses is 1"


def test_max_losses_does_not_end_a_job_of_which_an_older_copy_goes_on() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    first, second = begun_twice(rig)
    rig.network.join(first.ref.url, first.ref.store_id, first.host.handle)
    second.cut_off()
    for _ in range(30):
        first.tell()
        rig.run(5.0)
    assert pending(rig)["a"]["reason"] == "older_copy"
    rig.until(lambda: "a" in failures(rig))  # when nothing is heard of that one either


def test_a_copy_that_was_noted_before_and_written_over_is_noted_again() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    worker = started(rig, "a")
    before = rig.value("SELECT value FROM storage WHERE key = 'job/a'")
    worker.cut_off()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("a", 2)])
    rig.write(lambda tx: tx.run("UPDATE storage SET value = ? WHERE key = 'job/a'", before))
    rig.until(lambda: len(rig.all("SELECT 1 FROM events WHERE kind = 'lost'")) == 2, 120.0)
    rig.run(100.0)
    assert second.keys() == [("a", 2)]
    assert report(rig, "a", 2)["accepted"]


def test_one_key_that_cannot_be_begun_anew_holds_up_no_others() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    worker = started(rig, "a", "b")
    worker.tell()
    rig.write(lambda tx: paglets.storage_delete(tx, COLLECTOR, "state/a"))
    worker.cut_off()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("b", 2)])
    rig.run(100.0)
    assert rig.faults() == []
    (event,) = rig.all("SELECT subject, text FROM events WHERE kind = 'not_resubmitted'")
    assert event[0].startswith("a (")
    assert "state/a" in event[1]


# Ends by hand.


def test_a_cancel_tells_of_the_host_of_a_copy_that_was_taken_for_lost() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    first = started(rig, "a")
    first.tell()
    first.cut_off()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("a", 2)])
    second.tell()

    def where() -> list[tuple[str, str]]:
        told = rig.call(COLLECTOR, "cancel", {"job_keys": ["a"]})
        rig.run()
        return [(copy["host"]["name"], copy["residence"]) for copy in told.value["copies"]]

    assert where() == [("w2", "here"), ("w1", "lost")]
    rig.call(COLLECTOR, "copies_gone", {"job_keys": ["a"]})
    rig.run()
    assert where() == []


def test_a_waiting_job_that_a_person_ends_has_failed() -> None:
    rig = Rig()
    rig.get(GroupView, "POST", "/v1/groups", group("a", "b", request=slot_request(cpu_cores=4)))
    rig.run(2.0)
    ((agent_id, key),) = rig.all("SELECT agent_id, job_key FROM requests WHERE status = 'WAITING_FOR_SLOT'")
    rig.ask("DELETE", f"/v1/paglets/{agent_id}")
    rig.run()
    rig.finish(rig.process(agent_id))
    rig.run(1.0)
    assert rig.value("SELECT status FROM residence WHERE agent_id = ?", agent_id) == "disposed"
    assert (failures(rig)[key]["cause"], failures(rig)[key]["message"]) == ("cancelled", "ended by hand on home")
    rig.run(200.0)
    assert rig.all("SELECT 1 FROM events WHERE kind = 'lost'") == []


# Inputs.

INPUT = b"the input of a job"


def holder(rig: Rig) -> Rig:
    """Another host, w2, which has the input."""
    other = Rig(name="w2", beside=rig, tags=("worker",))
    other.host.blob_store.put(INPUT)
    return other


def with_input(rig: Rig) -> FileRef:
    """A group g1 of one job with an input, which is not here any more: a collector that came from elsewhere."""
    blob = rig.host.blob_store.put(INPUT)
    file = FileRef(name="in.txt", sha256=blob.sha256, size_bytes=blob.size_bytes)
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=NOT_HERE, inputs=(file,)))
    worker = Worker(rig, "w1")
    worker.host.routes["POST /v1/blobs/state"] = lambda body: states(body, complete=True)
    rig.until(lambda: worker.keys() == [("a", 1)])
    forget_bytes(rig, [file])
    worker.tell()
    worker.cut_off()
    return file


def forget_bytes(rig: Rig, files: list[FileRef]) -> None:
    rig.write(lambda tx: tx.run("DELETE FROM group_blobs"))
    rig.write(lambda tx: tx.run("DELETE FROM blobs"))
    for file in files:
        rig.blobs.remove(file.sha256)


def states(body: Any, *, complete: bool) -> BlobStates:
    return BlobStates(blobs=tuple(BlobState(sha256=sha, offset=0, complete=complete) for sha in body["sha256s"]))


def test_inputs_that_only_an_absent_host_has_are_waited_for_and_then_the_job_fails() -> None:
    rig = Rig(host_lost_after_seconds=20.0, input_wait_seconds=1000.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    assert pending(rig)["a"]["reason_text"].endswith("its input in.txt is missing and is being searched for")
    rig.run(20.0)
    told = pending(rig)["a"]
    assert told["reason_text"].endswith("its input in.txt is on no online host")
    assert told["host_name"] == "w1"
    rig.run(500.0)
    assert pending(rig)["a"]["since"] == told["since"]
    rig.until(lambda: "a" in failures(rig), within_seconds=1000.0)
    assert failures(rig)["a"]["cause"] == "host_lost"


def test_inputs_are_fetched_from_a_host_that_has_them() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    other = holder(rig)
    rig.until(lambda: other.value("SELECT generation FROM requests WHERE job_key = 'a'") == 2, within_seconds=120.0)


def test_a_job_is_begun_anew_as_soon_as_its_input_is_here() -> None:
    """What is fetched stays for a while only, and that may be less than the time to the next look."""
    rig = Rig(host_lost_after_seconds=20.0, blob_pin_seconds=1.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    other = holder(rig)
    rig.until(lambda: other.value("SELECT generation FROM requests WHERE job_key = 'a'") == 2, within_seconds=120.0)


def test_the_wait_for_inputs_is_not_by_a_clock_that_people_set() -> None:
    rig = Rig(host_lost_after_seconds=20.0, input_wait_seconds=7 * 86400.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    rig.clock.wall_error_seconds += 8 * 86400.0
    rig.run(60.0)
    assert failures(rig) == {}


def test_it_is_said_why_an_input_cannot_be_had_here() -> None:
    rig = Rig(host_lost_after_seconds=20.0, artifact_quota_bytes=30)
    with_input(rig)
    rig.host.blob_store.put(b"what takes the room of it")
    holder(rig)
    rig.until(lambda: "its input in.txt cannot be fetched: " in pending(rig)["a"]["reason_text"], 120.0)
    assert "18" in pending(rig)["a"]["reason_text"]


def test_a_host_that_answers_of_other_bytes_is_one_that_has_none() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    with_input(rig)
    rig.peer("w3", {"POST /v1/blobs/state": lambda body: BlobStates(blobs=())})
    rig.until(lambda: "is on no online host" in pending(rig)["a"]["reason_text"], 120.0)


def test_what_was_fetched_stays_while_the_rest_is_waited_for() -> None:
    rig = Rig(host_lost_after_seconds=20.0, blob_pin_seconds=60.0)
    refs = [rig.host.blob_store.put(data) for data in (b"first", b"second")]
    files = [FileRef(name=f"{n}.bin", sha256=r.sha256, size_bytes=r.size_bytes) for n, r in enumerate(refs)]
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=NOT_HERE, inputs=tuple(files)))
    worker = Worker(rig, "w1")
    worker.host.routes["POST /v1/blobs/state"] = lambda body: states(body, complete=True)
    rig.until(lambda: worker.keys() == [("a", 1)])
    forget_bytes(rig, files)
    worker.cut_off()
    other = Rig(name="w2", beside=rig, tags=("worker",))
    other.host.blob_store.put(b"first")

    def is_here() -> bool:
        return bool(rig.value("SELECT count(*) FROM blobs WHERE sha256 = ?", files[0].sha256))

    rig.until(is_here)
    for _ in range(30):
        rig.run(10.0)
        assert is_here()


# What they are made of.


def test_what_a_further_copy_is_made_of_is_kept_as_submitted_until_the_end() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    worker = started(rig, "a", "b")

    def kept() -> list[str]:
        rows = rig.all("SELECT key FROM storage WHERE key LIKE 'template/%' OR key LIKE 'state/%' ORDER BY key")
        return [key for (key,) in rows]

    assert kept() == ["state/a", "state/b", "template/a", "template/b"]
    first = worker.host.bodies("POST /v1/transfers")[-1]["envelopes"]
    report(rig, "a", 1)
    assert kept() == ["state/b", "template/b"]
    worker.cut_off()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("b", 2)])
    (again,) = second.host.bodies("POST /v1/transfers")[-1]["envelopes"]
    (before,) = [each for each in first if each["job"]["job_key"] == "b"]
    for name in ("class_name", "state", "home", "bundle", "files"):
        assert again[name] == before[name]
    job = {name: value for name, value in before["job"].items() if name != "waited_seconds"}
    assert {**again["job"], "waited_seconds": 0.0} == {**job, "generation": 2, "losses": 1, "waited_seconds": 0.0}

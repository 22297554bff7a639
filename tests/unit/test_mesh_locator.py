from paglets.api.paglets import Located, ResidenceRow
from paglets.core.refs import HostRef
from paglets.mesh.locator import Answer, merge
from tests.fakes.mesh import VirtualHost, VirtualMesh, member

LOCATE = "POST /v1/paglets/locate"


def host_ref(name: str) -> HostRef:
    return HostRef(store_id=f"store-{name}", name=name, url=f"http://{name}:8765")


def row(agent_id: str, epoch: int, status: str, peer: str = "peer") -> ResidenceRow:
    return ResidenceRow(agent_id=agent_id, epoch=epoch, status=status, peer=host_ref(peer))


def started(count: int) -> tuple[VirtualMesh, list[VirtualHost]]:
    mesh = VirtualMesh()
    hosts = mesh.start_many(count)
    mesh.clock.advance_until(mesh.all_see_all, 2.0)
    mesh.network.sent.clear()
    return mesh, hosts


def test_the_highest_epoch_wins_and_here_over_others_of_one_epoch() -> None:
    answers = [
        Answer(host=host_ref("a"), located=Located(rows=(row("p", 1, "here"), row("q", 3, "gone")))),
        Answer(host=host_ref("b"), located=Located(rows=(row("p", 2, "gone", "c"), row("q", 3, "here")))),
    ]
    for order in (answers, answers[::-1]):
        assert merge(order).rows == (row("p", 2, "gone", "c"), row("q", 3, "here", "b"))


def test_all_online_hosts_are_asked_and_the_answer_comes_once() -> None:
    mesh, hosts = started(4)
    hosts[2].residence = Located(rows=(row("p", 5, "here"),))
    hosts[3].residence = Located(rows=(row("p", 4, "gone"),))
    answers: list[Located] = []
    hosts[0].locator.locate(["p", "nobody-knows"], answers.append)
    mesh.clock.advance(10)
    assert answers == [Located(rows=(row("p", 5, "here", "h02"),), answered=("store-h01", "store-h02", "store-h03"))]
    assert mesh.network.sent[("store-h00", LOCATE)] == 3


def test_many_questions_of_one_moment_are_one_request_to_each_host() -> None:
    mesh, hosts = started(3)
    hosts[1].residence = Located(rows=tuple(row(f"p{n}", 1, "here") for n in range(200)))
    answers: list[Located] = []
    for n in range(200):
        hosts[0].locator.locate([f"p{n}"], answers.append)
    mesh.clock.advance_until(lambda: len(answers) == 200, 0.2)
    assert [answer.rows[0].agent_id for answer in answers] == [f"p{n}" for n in range(200)]
    assert mesh.network.sent[("store-h00", LOCATE)] == 2


def test_an_answer_is_remembered_for_a_second_and_no_longer() -> None:
    mesh, hosts = started(2)
    answers: list[Located] = []
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance(0.5)
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance(0.1)
    assert (len(answers), mesh.network.sent[("store-h00", LOCATE)]) == (2, 1)
    mesh.clock.advance(1)
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance(0.5)
    assert (len(answers), mesh.network.sent[("store-h00", LOCATE)]) == (3, 2)


def test_who_answered_is_who_answered_of_each_id() -> None:
    mesh, hosts = started(3)
    answers: list[Located] = []
    mesh.network.part(("store-h02",), ("store-h00", "store-h01"))
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance_until(lambda: answers, 2.1)
    mesh.network.heal()
    hosts[0].locator.locate(["p", "q"], answers.append)  # the answers for `p` are cached
    mesh.clock.advance_until(lambda: len(answers) == 2, 2.1)
    assert [answer.answered for answer in answers] == [("store-h01",), ("store-h01",)]


def test_one_who_cannot_take_his_answer_does_not_take_it_from_others() -> None:
    mesh, hosts = started(2)
    answers: list[Located] = []

    def fails(located: Located) -> None:
        raise ValueError("mine")

    hosts[0].locator.locate(["p"], fails)
    hosts[0].locator.locate(["q"], answers.append)
    mesh.clock.advance(5.0)
    assert len(answers) == 1
    assert hosts[0].driver.faults


def test_a_question_during_another_for_the_same_id_waits_for_that_one() -> None:
    mesh, hosts = started(2)
    answers: list[Located] = []
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance(0.0)
    hosts[0].locator.locate(["p"], answers.append)
    mesh.clock.advance(0.5)
    assert (len(answers), mesh.network.sent[("store-h00", LOCATE)]) == (2, 1)


def test_a_host_that_does_not_answer_delays_by_two_seconds_only() -> None:
    mesh, hosts = started(3)
    hosts[1].residence = Located(rows=(row("p", 1, "here"),))
    mesh.network.part(("store-h02",), ("store-h00", "store-h01"))
    answers: list[Located] = []
    hosts[0].locator.locate(["p"], answers.append)
    took = mesh.clock.advance_until(lambda: answers, 2.1)
    assert 1.9 < took < 2.1
    assert answers == [Located(rows=(row("p", 1, "here", "h01"),), answered=("store-h01",))]


def test_alone_the_answer_is_that_nobody_knows() -> None:
    mesh = VirtualMesh()
    host = mesh.start(member("a"))
    answers: list[Located] = []
    host.locator.locate(["p"], answers.append)
    host.locator.locate([], answers.append)
    mesh.clock.advance(0.0)
    assert answers == [Located(), Located()]


def test_thousands_of_ids_go_in_bounded_requests() -> None:
    mesh, hosts = started(2)
    answers: list[Located] = []
    hosts[0].locator.locate([f"p{n}" for n in range(2_500)], answers.append)
    mesh.clock.advance(1)
    assert len(answers) == 1
    assert mesh.network.sent[("store-h00", LOCATE)] == 3
    assert not hosts[0].driver.faults

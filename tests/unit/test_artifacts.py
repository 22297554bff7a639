"""Artifacts through a `HostClient`, with hosts in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.api.blobs import Artifacts
from paglets.api.paglets import PagletView
from paglets.client.host_client import HostClient
from paglets.client.proxy import PagletProxy
from paglets.core.errors import CallOutcomeUnknown, Conflict, FileChanged, Invalid, Moved, Unknown, Unreachable
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.testing.authors import FakeSender
from tests.fakes.filehost import FileHost, file_mesh
from tests.unit.files_rig import blob_of

DATA = b"some bytes"


class Given:
    def __init__(self, folder: Path) -> None:
        self.exchange, (self.a, self.b) = file_mesh("a", "b")
        self.client = HostClient("http://a:8765", timeout=5.0, exchange=self.exchange, environ={})
        self.client._mesh.base = self.a.ref
        self.path = folder / "data.bin"
        self.path.write_bytes(DATA)

    def owner(self, host: FileHost) -> ProxyRef:
        return ProxyRef(agent_id="p1", host=host.ref)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_a_file_becomes_an_artifact_of_the_host(given: Given) -> None:
    ref = given.client.upload_artifact(given.path, expires_in_seconds=60.0)
    assert (ref.name, ref.owner, ref.host_name, ref.blob) == ("data.bin", "", "a", blob_of(DATA))
    assert (ref.artifact_id[:4], ref.expires_at) == ("art-", 65.0)
    assert given.path.exists()
    assert given.client.artifact(ref).host == given.a.ref
    assert given.client.artifact(ref.artifact_id).artifact == ref


def test_a_file_that_is_moved_goes_only_after_the_reply(given: Given) -> None:
    def before(method: str, offset: int) -> None:
        assert given.path.exists()

    given.a.before_piece = before
    given.client.upload_artifact(given.path, name="other", move=True)
    assert not given.path.exists()
    assert [artifact.name for artifact in given.a.artifacts.values()] == ["other"]


def test_a_file_that_changed_since_is_not_removed(given: Given) -> None:
    given.exchange.hosts[given.a.ref.url] = Rewriting(given)
    with pytest.raises(FileChanged, match="was not removed"):
        given.client.upload_artifact(given.path, move=True)
    assert given.path.read_bytes() == b"newer and longer"


class Rewriting(FileHost):
    """A host whose handler changes the file."""

    def __init__(self, given: Given) -> None:
        super().__init__(name="a", blobs=given.a.blobs)
        self.path = given.path

    def _add(self, wanted):
        made = super()._add(wanted)
        self.path.write_bytes(b"newer and longer")
        return made


def test_bytes_go_to_the_host_of_the_owner(given: Given) -> None:
    ref = given.client.upload_artifact(given.path, owner=given.owner(given.b))
    assert (ref.owner, ref.host_name) == ("p1", "b")
    assert (list(given.a.blobs), list(given.b.blobs)) == ([], [ref.sha256])


def test_an_owner_that_moved_is_followed_with_the_bytes(given: Given) -> None:
    moved = Moved("it went on", host=to_json(given.b.ref), epoch=2)
    given.exchange.hosts[given.a.ref.url] = WithoutOwner(name="a", others=(given.b,), moved=moved)
    ref = given.client.upload_artifact(given.path, owner="p1")
    assert (ref.owner, ref.host_name) == ("p1", "b")


class WithoutOwner(FileHost):
    def __init__(self, *, moved: Moved, **more) -> None:
        super().__init__(**more)
        self.routes["GET /v1/mesh/hosts"] = lambda body: file_mesh("a", "b")[0].members()
        self.moved = moved

    def _add(self, wanted):
        raise self.moved


def test_a_lost_reply_makes_no_second_artifact(given: Given) -> None:
    class Losing(FileHost):
        def _add(self, wanted):
            made = FileHost._add(self, wanted)
            if len(ids) < 1:
                ids.append(made.artifact_id)
                raise CallOutcomeUnknown("cut")
            return made

    ids: list[str] = []
    losing = Losing(name="a", routes=given.a.routes)
    given.exchange.hosts[given.a.ref.url] = losing
    given.client.hosts()
    assert given.client.upload_artifact(given.path).artifact_id == ids[0]
    assert list(losing.artifacts) == ids


def test_a_name_or_time_that_cannot_be_is_refused_before_anything_is_sent(given: Given) -> None:
    for more in ({"name": "../x"}, {"expires_in_seconds": 0.0}, {"expires_in_seconds": float("nan")}):
        with pytest.raises(Invalid):
            given.client.upload_artifact(given.path, **more)
    assert given.a.asked == []


@pytest.mark.parametrize(
    ("path", "told"), [("", "is a folder"), ("..", "is a folder"), ("nofile", "no such file"), ("a\nb", "--name")]
)
def test_what_cannot_be_an_artifact_by_its_path_is_told_as_that(given: Given, path: str, told: str) -> None:
    (given.path.parent / "a\nb").write_bytes(DATA)
    for act in (given.client.upload_artifact, given.client.proxy(given.owner(given.a)).send_artifact):
        with pytest.raises(Invalid, match=told):
            act(given.path.parent / path)
    assert given.a.asked == []


def test_an_owner_that_cannot_be_is_refused_before_anything_is_sent(given: Given) -> None:
    with pytest.raises(Invalid, match=r"'\.\./x' is not the id of a paglet"):
        given.client.upload_artifact(given.path, owner="../x")
    assert given.a.asked == []


def test_a_host_that_never_keeps_the_bytes_does_not_hold_it_for_ever(given: Given) -> None:
    class Forgetting(FileHost):
        def _add(self, wanted):
            self.blobs.clear()
            return FileHost._add(self, wanted)

    given.exchange.hosts[given.a.ref.url] = Forgetting(name="a")
    with pytest.raises(Conflict, match="lost the uploaded bytes 3 times"):
        given.client.upload_artifact(given.path)


# Lists.


def test_the_artifacts_of_all_hosts_are_listed_page_by_page_each_once(given: Given) -> None:
    for n in range(5):
        given.a.keep(DATA, artifact_id=f"art-0000000{n}", owner="p1" if n % 2 else "")
    given.b.keep(DATA, artifact_id="art-00000003")
    given.b.keep(DATA, artifact_id="art-00000009", owner="p1")
    assert [ref.artifact_id[-1] for ref in given.client.list_artifacts()] == ["0", "1", "2", "3", "4", "9"]
    assert [ref.artifact_id[-1] for ref in given.client.list_artifacts("p1")] == ["1", "3", "9"]
    assert [ref.artifact_id[-1] for ref in given.client.list_artifacts("")] == ["0", "2", "3", "4"]


def test_a_list_whose_pages_lead_nowhere_ends(given: Given) -> None:
    class Circling(FileHost):
        def _page(self, query):
            return Artifacts(artifacts=(given.a.keep(DATA),), next="")

    given.exchange.hosts[given.b.ref.url] = Circling(name="b")
    assert len(given.client.list_artifacts()) == 1


def test_a_list_without_an_end_is_given_up_and_the_host_named(given: Given) -> None:
    class Endless(FileHost):
        def _page(self, query):
            after = f"art-{int(query['after'][4:] or '0') + 1:08}"
            return Artifacts(artifacts=(given.a.keep(DATA),), next=after)

    given.exchange.hosts[given.b.ref.url] = Endless(name="b")
    _, errors = given.client.mesh_artifacts()
    assert [error.message for error in errors] == [
        "b: the host's list of artifacts has no end (1,000 so far); the host is faulty"
    ]


def test_a_host_that_does_not_answer_is_an_error_beside_what_the_others_have(given: Given) -> None:
    given.a.keep(DATA)
    given.client.timeout = 0.2
    given.b.broken = [Unreachable("b is away")] * 100
    found, errors = given.client.mesh_artifacts()
    assert ([ref.host_name for ref in found], [error.message for error in errors]) == (["a"], ["b: b is away"])
    with pytest.raises(Unreachable):
        given.client.list_artifacts()


def test_one_is_deleted_wherever_it_is_and_only_once(given: Given) -> None:
    ref = given.b.keep(DATA)
    given.b.lost = [CallOutcomeUnknown("cut")]
    given.client.delete_artifact(ref)
    assert given.b.artifacts == {}
    with pytest.raises(Unknown):
        given.client.delete_artifact(ref)


# Sending to a paglet.


def test_a_file_is_sent_with_a_message_by_way_of_the_clients_host(given: Given) -> None:
    target = given.owner(given.b)
    ref = PagletProxy(target, given.client).send_artifact(given.path, kind="data", move=True, day="monday")
    (post,) = given.a.posts
    assert (post.target, post.message.kind, post.message.args) == (target, "data", {"day": "monday"})
    assert post.message.artifacts == (ref,)
    assert (ref.owner, ref.name, ref.host_name, ref.blob) == ("p1", "data.bin", "a", blob_of(DATA))
    assert list(given.a.blobs) == [ref.sha256]
    assert not given.path.exists()


def test_a_sender_without_files_says_so(given: Given) -> None:
    with pytest.raises(Conflict, match="this proxy of p1 cannot send files"):
        PagletProxy(given.owner(given.a), FakeSender()).send_artifact(given.path)
    assert given.path.exists()


def test_the_target_of_a_file_may_be_named_by_its_id(given: Given) -> None:
    given.a.routes["GET /v1/paglets/p1"] = lambda body: PagletView(
        agent_id="p1", class_name="m:C", kind="paglet", residence="here", epoch=1, host=given.a.ref
    )
    given.client.proxy("p1").send_artifact(given.path)
    assert given.a.posts[0].target.agent_id == "p1"
    assert isinstance(given.a.posts[0].target.host, HostRef)

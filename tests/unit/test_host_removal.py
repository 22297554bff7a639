"""`mesh forget`: the host that is meant, the hosts that remove it, and the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.api.hosts import Forgotten, Hosts, MeshHostView
from paglets.cli.commands import mesh
from paglets.client.host_client import HostClient
from paglets.client.host_removal import ForgottenHost, shown
from paglets.core.errors import Conflict, InternalError, Invalid, PagletsError, Unknown
from tests.fakes.exchange import TableExchange, TableHost
from tests.fakes.mesh import member

FORGET = "POST /v1/mesh/forget"


class Mesh(TableExchange):
    """`home` and `w2` are online, `away` is not, and so is any host in `more`, by (name, store id)."""

    def __init__(self, *more: tuple[str, str]) -> None:
        self.away = (("away", "store-away"), *more)
        self.told: list[tuple[str, str]] = []
        hosts = [TableHost(name=name) for name in ("home", "w2")]
        super().__init__(*hosts)
        for each in hosts:
            each.routes[FORGET] = lambda body, host=each: self._forget(host, body)

    def members(self) -> Hosts:
        online = super().members().hosts
        away = [
            MeshHostView(
                host=member(name, store_id=store_id, url=f"http://{name}:8765"), online=False, seconds_since_seen=99.0
            )
            for name, store_id in self.away
        ]
        return Hosts(hosts=(*online, *away))

    def _forget(self, host: TableHost, body: Any) -> Forgotten:
        self.told.append((host.name, body["store_id"]))
        return Forgotten(host=host.ref, known=True, taken_back=len(host.name), moves_dropped=0)


def forget(exchange: Mesh, tmp_path: Path, wanted: str) -> ForgottenHost:
    with HostClient("http://home:8765", exchange=exchange, environ={"PAGLETS_HOME": str(tmp_path)}) as client:
        return client.forget_host(wanted)


@pytest.mark.parametrize("wanted", ["away", "store-away", "AWAY:8765", "http://away:8765"])
def test_all_hosts_that_are_online_are_told(tmp_path: Path, wanted: str) -> None:
    exchange = Mesh(("sleeps", "store-sleeps"))
    done = forget(exchange, tmp_path, wanted)
    assert sorted(exchange.told) == [("home", "store-away"), ("w2", "store-away")]
    assert (done.store_id, done.name, done.unreachable, done.errors) == ("store-away", "away", ("sleeps",), ())
    assert [(each.host.name, each.taken_back) for each in done.answers] == [("home", 4), ("w2", 2)]


def test_a_host_that_only_another_host_lists_is_removed_though_its_name_is_in_use(tmp_path: Path) -> None:
    exchange = Mesh(("w2", "store-w2-before"), ("home", "store-home"))
    everything = exchange.members()
    exchange.away = ()
    exchange.hosts["http://w2:8765"].routes["GET /v1/mesh/hosts"] = lambda body: everything
    done = forget(exchange, tmp_path, "w2")
    assert done.store_id == "store-w2-before"
    assert sorted(exchange.told) == [("home", "store-w2-before"), ("w2", "store-w2-before")]
    with pytest.raises(Conflict, match="home is online"):
        forget(exchange, tmp_path, "home")


def test_a_host_that_fails_is_told_of_and_holds_up_no_other(tmp_path: Path) -> None:
    exchange = Mesh()

    def fails(body: Any) -> Forgotten:
        raise InternalError("disk")

    exchange.hosts["http://w2:8765"].routes[FORGET] = fails
    done = forget(exchange, tmp_path, "away")
    assert [each.host.name for each in done.answers] == ["home"]
    assert [str(error) for error in done.errors] == ["w2: disk"]
    assert mesh.forget_json(done)["unreachable"] == ["w2: disk"]


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        ("w2", Conflict, "w2 is online\nhint: stop it first"),
        ("store-w2", Conflict, "w2 is online"),
        (
            "twin",
            Invalid,
            "store-1 at http://twin:8765, not seen for 99 s, store-2 at http://twin:8765, not seen for 99 s\n",
        ),
        ("stor", Invalid, "online is store-ho at http://home:8765; online is store-w2"),
        ("store-w", Conflict, "w2 is online"),
        ("sto", Unknown, "knows no host 'sto'"),
        ("nobody", Unknown, "knows no host 'nobody'"),
    ],
)
def test_what_is_not_to_be_forgotten_is_refused_and_nobody_is_told(
    tmp_path: Path, wanted: str, error: type[PagletsError], text: str
) -> None:
    exchange = Mesh(("twin", "store-1"), ("twin", "store-2"))
    with pytest.raises(error, match=text):
        forget(exchange, tmp_path, wanted)
    assert exchange.told == []


def test_of_two_hosts_of_one_name_the_one_that_is_away_is_meant(tmp_path: Path) -> None:
    exchange = Mesh(("w2", "store-old"))
    done = forget(exchange, tmp_path, "w2")
    assert (done.store_id, done.which) == ("store-old", "store-ol at http://w2:8765, not seen for 99 s")
    assert mesh.forget_json(done)["others"] == [
        {"store_id": "store-w2", "url": "http://w2:8765", "online": True},
    ]
    assert forget(exchange, tmp_path, "away").others == ()


def test_of_a_member_and_a_twin_that_never_joined_it_is_told_which_was_forgotten(tmp_path: Path) -> None:
    exchange = Mesh()
    twin = MeshHostView(
        host=member("w2", store_id="twin-000", url="http://w2:9"),
        online=False,
        seconds_since_seen=0.3,
        problem="not joined: the name w2 belongs to the host at http://w2:8765",
    )
    exchange.members = lambda: Hosts(hosts=(*Mesh.members(exchange).hosts, twin))  # type: ignore[method-assign]
    done = forget(exchange, tmp_path, "w2")
    assert (done.which, [shown(view) for view in done.others]) == (
        "twin-000 at http://w2:9, not joined",
        ["store-w2 at http://w2:8765"],
    )


def test_of_several_old_stores_of_a_name_each_is_named_by_how_its_id_begins(tmp_path: Path) -> None:
    exchange = Mesh(("w2", "07a4-one"), ("w2", "07a5-two"))
    with pytest.raises(Invalid, match=r"07a4-one at http://w2:8765, not seen .* 07a5-two .*; online is store-w2 at"):
        forget(exchange, tmp_path, "w2")
    done = forget(exchange, tmp_path, "07a5")
    assert (done.store_id, done.unreachable) == ("07a5-two", ("away",))


def test_a_host_behind_nat_counts_as_online_for_longer(tmp_path: Path) -> None:
    exchange = Mesh()
    for reachable, words in ((True, "up to 10 s"), (False, "up to 20 s")):
        view = MeshHostView(host=member("nat", reachable=reachable), online=True, seconds_since_seen=9.0)
        exchange.members = lambda view=view: Hosts(hosts=(*Mesh.members(exchange).hosts, view))  # type: ignore[method-assign,misc]
        with pytest.raises(Conflict, match=words):
            forget(exchange, tmp_path, "nat")


def test_a_host_that_the_asked_one_has_forgotten_is_known_by_others(tmp_path: Path) -> None:
    exchange = Mesh()
    w2 = exchange.hosts["http://w2:8765"]
    w2.routes["GET /v1/mesh/hosts"] = lambda body: Mesh(("old", "store-old")).members()
    assert forget(exchange, tmp_path, "old").store_id == "store-old"
    assert sorted(exchange.told) == [("home", "store-old"), ("w2", "store-old")]


def test_a_host_that_nobody_lists_any_more_can_be_named_by_its_store(tmp_path: Path) -> None:
    exchange = Mesh()
    assert forget(exchange, tmp_path, "ab" * 16).name == "ab" * 16
    assert sorted(exchange.told) == [("home", "ab" * 16), ("w2", "ab" * 16)]


def test_the_command_says_what_each_host_did() -> None:
    def line(known: bool, taken_back: int, moves_dropped: int) -> str:
        host = TableHost(name="w1").ref
        return mesh.forget_text(Forgotten(host=host, known=known, taken_back=taken_back, moves_dropped=moves_dropped))

    assert line(True, 0, 0) == "removed"
    assert line(False, 1, 2) == "did not know it, took back 1 paglet in transfer, dropped 2 moves to it"

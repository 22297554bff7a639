"""The output of `paglets mesh hosts` about offline and superseded hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paglets.api.hosts import BrokenLink, Hosts, MeshHostView, PeerProblem, RefusedHost
from paglets.cli.views.hosts import host_row, print_hosts
from paglets.cli.views.offline_hosts import collector_problem, offline_text
from paglets.mesh.view import OLD_STORE, no_route_text
from tests.fakes.mesh import member

W1 = MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0)
AWAY = replace(W1, online=False, seconds_since_seen=40.0)
OLD = replace(
    AWAY,
    host=member("w1", store_id="0a1b2c3d4e"),
    problem=f"{OLD_STORE} (0a1b2c3d): the name w1 is that of store-w1 at http://w1:8765 now",
)


def test_what_is_left_of_a_host_stands_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    peer = PeerProblem(url="http://x:1", problem="http://x:1 cannot be reached")
    print_hosts(Hosts(hosts=(W1, OLD), peers=(peer,)))
    told = capsys.readouterr()
    header, row, _, old = told.out.splitlines()
    assert (header.split()[0], row.split()[:2]) == ("HOST", ["w1", "online"])
    assert old == f"w1, last seen 40 s ago: {OLD.problem}"
    assert told.err == "paglets: not joined: peer http://x:1: cannot be reached\n"


def test_the_only_host_says_how_another_one_joins_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_hosts(Hosts(hosts=(W1,)))
    joins = "run `paglets host --bind-public auto --peer http://w1:8765` there"
    assert capsys.readouterr().err == f"hint: copy the mesh key to another machine, and {joins}\n"
    print_hosts(Hosts(hosts=(replace(W1, host=member("w1", url="http://127.0.0.1:8765")),)))
    assert capsys.readouterr().err.startswith("hint: restart this host with `--bind-public auto` so ")


def test_who_cannot_connect_to_whom_and_who_has_another_key_is_said_below(capsys: pytest.CaptureFixture[str]) -> None:
    views = (W1, replace(W1, host=member("w2")), replace(W1, host=member("w3"), problem="w1 cannot connect to w3"))
    cuts = (BrokenLink(source="w1", target="w3", seconds=20.0), BrokenLink(source="w2", target="w3", seconds=12.0))
    print_hosts(Hosts(hosts=views, broken_links=cuts, refused=(RefusedHost(address="10.0.0.5", seconds=3.0),)))
    assert capsys.readouterr().err.splitlines() == [
        "paglets: w3: w1 cannot connect to w3",
        "paglets: w2 cannot connect to w3 (12 s)",
        "paglets: refused a host at 10.0.0.5: wrong mesh key (last 3.0 s ago)",
    ]


def test_one_that_was_not_heard_of_yet_is_not_silent_for_so_long() -> None:
    view = replace(AWAY, was_seen=False)
    assert (host_row(AWAY)[1], host_row(view)[1]) == ("offline for 40 s", "not seen yet")
    listened = "not seen by the answering host, which has listened for 40 s"
    assert collector_problem(view.host.ref, [view]) == f"collector on w1, {listened}"
    assert offline_text(view).startswith(f"w1 is offline, {listened}: if that lasts")


def test_a_host_that_is_long_away_stays_in_the_table_with_the_way_to_give_it_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = replace(AWAY, host=member("try1"), offline_seconds=3 * 86_400.0, was_seen=False, seconds_since_seen=20.0)
    print_hosts(Hosts(hosts=(W1, replace(AWAY, host=member("w2")), old)))
    told = capsys.readouterr()
    assert "try1  offline for 3 d" in told.out
    assert told.err == "hint: if it will not come back, `paglets mesh forget try1` removes it\n"
    assert offline_text(old).startswith("try1 is offline, not seen for 3 d: ")
    print_hosts(Hosts(hosts=(W1, old, replace(old, host=member("try2")))))
    assert capsys.readouterr().err == "hint: `paglets mesh forget NAME` removes a host that will not come back\n"


def test_where_only_a_third_host_is_lacking_that_is_said() -> None:
    told = offline_text(replace(AWAY, problem=no_route_text("w1", "n1")))
    no_route = "nobody can connect to w1, nor to n1, and no host is online that both can reach"
    assert told.startswith(f"w1 is offline, last seen 40 s ago ({no_route}): if that lasts")

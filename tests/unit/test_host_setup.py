"""What the options of a host come to before anything is opened."""

from __future__ import annotations

from paglets.config import HostOptions
from paglets.host.setup import addresses, names, others


def test_a_host_that_a_shared_file_names_as_peer_is_no_peer_of_itself() -> None:
    peers = ("http://laptop:8765", "http://gpu-a:8765")
    assert others(HostOptions(name="laptop", peers=peers)) == ("http://gpu-a:8765",)
    assert others(HostOptions(name="linux-a", peers=peers)) == peers


def test_another_host_of_the_same_machine_is_a_peer() -> None:
    peers = ("http://laptop:8765",)
    assert others(HostOptions(name="laptop", port=8766, peers=peers)) == peers


def test_the_public_url_names_this_host_too() -> None:
    options = HostOptions(name="a", public_url="http://A.example:80", peers=("http://a.example:80",))
    assert others(options) == ()


def test_it_listens_at_its_own_address_and_at_a_public_one_that_does_not_include_it() -> None:
    assert addresses(HostOptions(name="a", port=9)) == (("127.0.0.1", 9),)
    assert addresses(HostOptions(name="a", host="127.0.0.2", port=9, bind_public="127.0.0.1")) == (
        ("127.0.0.2", 9),
        ("127.0.0.1", 9),
    )
    assert addresses(HostOptions(name="a", port=9, bind_public="0.0.0.0")) == (("0.0.0.0", 9),)


def test_it_may_be_asked_by_its_name_and_by_that_of_its_public_url() -> None:
    found = names(HostOptions(name="a", public_url="http://a.example:80"))
    assert {"a", "localhost", "a.example:80"} <= set(found)

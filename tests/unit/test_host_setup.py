"""The settings that follow from the options of a host."""

from __future__ import annotations

import pytest

from paglets.config import HostOptions
from paglets.host.setup import AdvertisedUrl, host_names, listen_addresses, peer_urls


def test_a_host_that_a_shared_file_names_as_peer_is_no_peer_of_itself() -> None:
    peers = ("http://laptop:8765", "http://gpu-a:8765")
    assert peer_urls(HostOptions(name="laptop", peers=peers)) == ("http://gpu-a:8765",)
    assert peer_urls(HostOptions(name="linux-a", peers=peers)) == peers


def test_another_host_of_the_same_machine_is_a_peer() -> None:
    peers = ("http://laptop:8765",)
    assert peer_urls(HostOptions(name="laptop", port=8766, peers=peers)) == peers


def test_the_public_url_names_this_host_too() -> None:
    options = HostOptions(name="a", public_url="http://A.example:80", peers=("http://a.example:80",))
    assert peer_urls(options) == ()


def test_it_listens_at_its_own_address_and_at_a_public_one_that_does_not_include_it() -> None:
    assert listen_addresses(HostOptions(name="a", port=9)) == (("127.0.0.1", 9),)
    assert listen_addresses(HostOptions(name="a", host="127.0.0.2", port=9, bind_public="127.0.0.1")) == (
        ("127.0.0.2", 9),
        ("127.0.0.1", 9),
    )
    assert listen_addresses(HostOptions(name="a", port=9, bind_public="0.0.0.0")) == (("0.0.0.0", 9),)


def test_it_may_be_asked_by_its_name_and_by_that_of_its_public_url() -> None:
    found = host_names(HostOptions(name="a", public_url="http://a.example:80"))
    assert {"a", "localhost", "a.example:80"} <= set(found)


@pytest.mark.parametrize(
    ("public", "host", "bound"),
    [
        ("192.168.1.5", "127.0.0.1", ("127.0.0.1", "192.168.1.5")),
        ("fd00::5", "127.0.0.1", ("127.0.0.1", "fd00::5")),
        ("0.0.0.0", "127.0.0.1", ("0.0.0.0",)),
        ("::", "127.0.0.1", ("127.0.0.1", "::")),
        ("192.168.1.5", "192.168.1.5", ("192.168.1.5",)),
    ],
)
def test_a_public_address_is_the_only_one_beside_its_own(public: str, host: str, bound: tuple[str, ...]) -> None:
    options = HostOptions(name="a", host=host, bind_public=public, port=9)
    assert listen_addresses(options) == tuple((each, 9) for each in bound)


def test_an_address_that_was_chosen_follows_the_machine_and_says_so() -> None:
    there = ["192.168.1.5"]
    own = AdvertisedUrl(HostOptions(name="a", bind_public="auto"), 9, lambda: there[0])
    assert (own.url(), own.update()) == ("http://192.168.1.5:9", "")
    there[0] = "10.1.2.3"
    assert "at http://10.1.2.3:9, not at http://192.168.1.5:9" in own.update()
    assert (own.url(), own.update()) == ("http://10.1.2.3:9", "")
    for useless in ("127.0.0.1", "fd00::5"):  # without a network; where the host does not listen
        there[0] = useless
        assert (own.update(), own.url()) == ("", "http://10.1.2.3:9")


@pytest.mark.parametrize("given", [{"bind_public": "192.168.1.5"}, {"public_url": "http://x:1", "bind_public": "auto"}])
def test_an_address_that_was_given_stays(given: dict[str, str]) -> None:
    there = ["192.168.1.5"]
    own = AdvertisedUrl(HostOptions(name="a", **given), 9, lambda: there[0])  # type: ignore[arg-type]
    before, there[0] = own.url(), "10.1.2.3"
    assert (own.update(), own.url()) == ("", before)

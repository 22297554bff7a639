from __future__ import annotations

import pytest

from paglets.client.proxy import PagletProxy
from paglets.codec import tagged_json
from paglets.core.errors import Conflict, Invalid
from paglets.core.messages import Message
from paglets.core.refs import HostRef, ProxyRef
from paglets.testing.authors import FakeSender

REF = ProxyRef(agent_id="p1", host=HostRef(store_id="s1", name="w1", url="http://w1:8765"))


def test_a_call_takes_a_kind_and_named_arguments() -> None:
    sender = FakeSender({"add": lambda message: message["left"] + message["right"]})
    assert PagletProxy(REF, sender).call("add", left=1, right=2, timeout_seconds=4) == 3
    assert sender.sent == [("p1", Message("add", {"left": 1, "right": 2}), 4)]


def test_send_is_call_and_takes_a_message() -> None:
    sender = FakeSender({"hello": lambda message: "hi"})
    assert PagletProxy(REF, sender).send(Message("hello")) == "hi"


def test_a_message_with_arguments_beside_it_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="has its own args"):
        PagletProxy(REF, FakeSender()).call(Message("add"), left=1)


def test_a_post_is_not_answered() -> None:
    sender = FakeSender()
    PagletProxy(REF, sender).post("note", text="x")
    assert sender.posted == [("p1", Message("note", {"text": "x"}))]


def test_a_proxy_comes_back_from_the_wire() -> None:
    sender = FakeSender()
    proxy = PagletProxy(REF, sender)
    assert PagletProxy.from_wire(proxy.to_wire(), sender) == proxy
    assert PagletProxy.from_wire(REF, sender).host_name == "w1"
    with pytest.raises(Invalid, match="agent_id"):
        PagletProxy.from_wire({"host": proxy.to_wire()["host"]}, sender)


def test_the_ref_of_a_proxy_travels_in_messages() -> None:
    assert tagged_json.decode(tagged_json.encode({"to": REF})) == {"to": REF}


def test_a_paglet_cannot_manage_another_through_its_context() -> None:
    with pytest.raises(Conflict, match="HostClient"):
        PagletProxy(REF, FakeSender()).dispatch_to("w2")


def test_proxies_of_one_paglet_are_equal_wherever_it_was_last_seen() -> None:
    moved = ProxyRef(agent_id="p1", host=HostRef(store_id="s2", name="w2"))
    assert len({PagletProxy(REF, FakeSender()), PagletProxy(moved, FakeSender())}) == 1

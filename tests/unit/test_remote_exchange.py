"""Bodies of requests and replies."""

from __future__ import annotations

import pytest

from paglets.codec.strict_json import loads
from paglets.core.errors import BadRequest, GroupExists, Invalid, TooLarge
from paglets.core.refs import HostRef
from paglets.wire.request import Response, dump_json, reply, reply_error


def test_a_record_goes_over_in_a_body() -> None:
    host = HostRef(store_id="s", name="würzburg", url="http://w:8765")

    assert reply(host).parse(HostRef) == host
    assert loads(dump_json((host, None))) == [{"store_id": "s", "name": "würzburg", "url": "http://w:8765"}, None]


def test_an_error_goes_over_in_a_body_and_is_raised_on_the_other_side() -> None:
    response = reply_error(GroupExists("there is one", group_id="g"))

    assert response.status == 409
    with pytest.raises(GroupExists, match="there is one") as failure:
        response.parse(HostRef)
    assert failure.value.details == {"group_id": "g"}


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1: 2}, b"x"])
def test_what_is_not_json_never_reaches_a_body(value: object) -> None:
    with pytest.raises(Invalid):
        dump_json({"value": value})


def test_a_bad_body_is_refused() -> None:
    for body in (b"", b"NaN", b'{"a":1,"a":2}', b"\xff", b'"\\ud800"'):
        with pytest.raises(BadRequest):
            loads(body)
    with pytest.raises(TooLarge):
        loads(b"[" * 200 + b"]" * 200)
    with pytest.raises(Invalid, match="HostRef: field 'store_id' is missing"):
        Response(status=200, body=b"{}").parse(HostRef)

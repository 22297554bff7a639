"""Frames, and the records in them."""

from __future__ import annotations

import dataclasses

import pytest

from paglets.core.errors import BadRequest, Invalid, TooLarge
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.worker.frames import HEADER, MAX_FRAME_BYTES, Unpacker, pack
from paglets.worker.launch import LaunchSpec
from paglets.worker.protocol import ENTRY_METHODS, LONG_ENTRIES, OPERATIONS
from paglets.worker.zygote_protocol import EndRun, StartedRun, from_frame, to_frame

FRAMES = [{"a": 1}, {}, {"text": "grüße \U0001f98a", "list": [None, True, 1.5]}, {"big": "x" * 100_000}]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000, 1 << 20])
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(piece: int) -> None:
    data = b"".join(pack(frame) for frame in FRAMES)
    unpacker = Unpacker()
    out = [frame for start in range(0, len(data), piece) for frame in unpacker.feed(data[start : start + piece])]
    assert out == FRAMES


def test_a_frame_that_is_not_complete_is_kept_back() -> None:
    unpacker = Unpacker()
    assert unpacker.feed(pack({"a": 1})[:-1]) == []
    assert unpacker.feed(b"}") == [{"a": 1}]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b"null",
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b"\xff\xfe",
        b"[" * 200 + b"]" * 200,
        b'{"a":"\\ud800"}',
        b"",
    ],
)
def test_a_frame_that_is_not_a_plain_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        Unpacker().feed(HEADER.pack(len(body)) + body)


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(TooLarge):
        Unpacker().feed(HEADER.pack(MAX_FRAME_BYTES + 1))


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(TooLarge):
        pack({"a": "x" * MAX_FRAME_BYTES})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\udc80", {1, 2}, b"bytes"])
def test_what_is_not_json_is_not_sent(value: object) -> None:
    with pytest.raises(Invalid):
        pack({"a": value})


def test_every_operation_has_a_record_that_parses_what_it_writes() -> None:
    for name, record in OPERATIONS.items():
        assert dataclasses.is_dataclass(record), name


def test_every_long_entry_calls_a_method() -> None:
    assert all(ENTRY_METHODS[entry] for entry in LONG_ENTRIES)


def test_zygote_records_survive_their_frames() -> None:
    spec = LaunchSpec(
        token="t",
        agent_id="a",
        attempt=2,
        work_dir="/w",
        stdout_path="/o",
        stderr_path="/e",
        cores=(0, 2),
    )
    for record in (spec, EndRun(token="t"), StartedRun(token="t", pid=5, start_time=1.25)):
        assert from_frame(to_frame(record)) == record


@pytest.mark.parametrize("frame", [{}, {"start": {}, "end": {}}, {"dance": {}}, {"end": {"token": 1}}])
def test_other_control_frames_are_refused(frame: dict[str, object]) -> None:
    with pytest.raises((BadRequest, Invalid)):
        from_frame(frame)


def test_a_reference_in_a_frame_comes_back_equal() -> None:
    ref = ProxyRef(agent_id="a", host=HostRef(store_id="s", name="n"))
    assert from_json(ProxyRef, Unpacker().feed(pack({"ref": to_json(ref)}))[0]["ref"]) == ref

"""Checks of signed envelopes: ids that are paths and bad numbers are refused."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job, job_part, slot_request

from paglets.api.transfers import TransferAnswers, Transfers
from paglets.codec.envelope import CarriedArtifact, Envelope, WireMessage, check_envelope, check_message
from paglets.core.errors import Invalid
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef

W1 = host_ref("w1")
LIES = [
    envelope("../logs"),
    envelope("/tmp/x"),
    envelope(".."),
    envelope(""),
    envelope("a\0b"),
    envelope("p1", epoch=-5),
    envelope("p1", epoch=(1 << 63) - 1),
    envelope("p1", kind="job", job=None),
    envelope("p1", kind="paglet", job=job_part()),
    *(
        envelope("p1", kind="job", job=job_part(**lie))
        for lie in (
            {"generation": 0},
            {"attempt": (1 << 63) - 1},
            {"failed_attempts": -1},
            {"losses": -1},
            {"status": "RUNNING"},
        )
    ),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda each: f"{each.agent_id!r}, {each.epoch}, {each.job is not None}")
def test_an_envelope_that_lies_is_not_kept(lie: Envelope) -> None:
    with pytest.raises(Invalid):
        check_envelope(lie)


def test_what_hosts_send_is_kept() -> None:
    for each in (envelope("p1"), job("j1"), envelope("collector-1", kind="collector")):
        assert check_envelope(each) is each


@pytest.mark.parametrize("lasts", [-1.0, 1e300])
def test_an_artifact_that_is_to_be_kept_for_no_such_time_is_refused(lasts: float) -> None:
    fields: dict[str, Any] = {"artifact_id": "art-12345678", "name": "x", "sha256": "ab" * 32, "size_bytes": 1}
    carried = CarriedArtifact(**fields, created_at=1.0, expires_in_seconds=lasts)
    sent = ArtifactRef(**fields, host_name="w1", owner="p1", created_at=1.0, expires_at=1.0 + lasts)
    with pytest.raises(Invalid, match="expires_in_seconds"):
        check_envelope(envelope("p1", artifacts=(carried,)))
    with pytest.raises(Invalid, match="expires_in_seconds"):
        check_message(WireMessage(kind="k", args={}, artifacts=(sent,)))


def test_one_lie_in_a_batch_is_left_out_of_the_answer_and_holds_up_no_other() -> None:
    rig = Rig()
    greedy = job("j2", "b", request=slot_request(cpu_cores=-3))
    batch = (envelope("../pwned", hook="creation"), greedy, job("j1"))
    answers = rig.get(TransferAnswers, "POST", "/v1/transfers", Transfers(source=W1, envelopes=batch), W1.store_id)
    assert [(each.agent_id, each.verdict) for each in answers.answers] == [("j2", "refused"), ("j1", "taken")]
    rig.run()
    assert rig.process("j1").go.entry == "attempt"
    assert rig.faults() == []


@pytest.mark.parametrize("lie", [{"agent_id": "../x"}, {"epoch": -1}, {"epoch": (1 << 63) - 1}])
def test_nothing_is_settled_that_cannot_be(lie: dict[str, Any]) -> None:
    rig = Rig()
    good = {"agent_id": "p1", "epoch": 2}
    settle = {"source": to_json(W1), "asked": [good, good | lie]}
    with pytest.raises(Invalid):
        rig.get(TransferAnswers, "POST", "/v1/transfers/settle", settle)
    assert rig.value("SELECT count(*) FROM residence") == 0

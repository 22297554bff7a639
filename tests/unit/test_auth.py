from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from paglets.core.clock import SystemEntropy
from paglets.core.errors import NotAllowed, Overloaded, StalePeer, WrongClock
from paglets.wire.auth import NONCE, RECEIVER, SENDER, SIGNATURE, TIME, Proof, Signer, Verifier, body_sha256
from paglets.wire.keys import MeshKey

KEY = MeshKey(text="k" * 43, source="test")
OTHER = MeshKey(text="o" * 43, source="test")
BODY = b'{"a":1}'


@dataclass
class HandClock:
    seconds: float = 1_000_000.0
    shift: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds + self.shift


def make_signer(key: MeshKey = KEY, shift: float = 0.0, sender: str = "s1") -> Signer:
    return Signer(key, clock=HandClock(shift=shift), entropy=SystemEntropy(), sender=sender)


def make_verifier(clock: HandClock | None = None, max_nonces: int = 1000) -> Verifier:
    return Verifier(KEY, store_id="s2", boot_id="b1", clock=clock or HandClock(), max_nonces=max_nonces)


def signed(
    signer: Signer, *, receiver: str = "s2:b1", method: str = "POST", target: str = "/v1/posts?x=1"
) -> dict[str, str]:
    return signer.headers(method, target, signer.proof(BODY, receiver=receiver))


def let_in(verifier: Verifier, fields: dict[str, str], method: str = "POST", target: str = "/v1/posts?x=1") -> Proof:
    proof = verifier.proof(method, target, fields)
    assert proof is not None
    verifier.admit(method, target, proof)
    return proof


def test_a_signed_request_comes_in_and_names_its_sender() -> None:
    proof = let_in(make_verifier(), signed(make_signer()))
    assert (proof.sender, proof.body_sha256) == ("s1", body_sha256(BODY))


def test_a_client_has_no_sender_id() -> None:
    assert let_in(make_verifier(), signed(make_signer(sender=""))).sender == ""


def test_a_request_under_another_key_proves_nothing() -> None:
    assert make_verifier().proof("POST", "/v1/posts?x=1", signed(make_signer(OTHER))) is None


@pytest.mark.parametrize("name", sorted(signed(make_signer())))
def test_a_request_proves_nothing_when_a_field_is_missing_malformed_or_changed(name: str) -> None:
    verifier, fields = make_verifier(), signed(make_signer())
    last = fields[name][-1] if fields[name] else ""
    changed = fields[name][:-1] + ("0" if last != "0" else "1")
    for value in (changed, "", "ä", fields[name] + "\n", fields[name] + " ", fields[name] * 100, "*:*"):
        assert verifier.proof("POST", "/v1/posts?x=1", {**fields, name: value}) is None, value
    del fields[name]
    assert verifier.proof("POST", "/v1/posts?x=1", fields) is None or name == SENDER


@pytest.mark.parametrize(
    ("method", "target"), [("PUT", "/v1/posts?x=1"), ("POST", "/v1/posts?x=2"), ("POST", "/v1/posts")]
)
def test_a_signature_is_for_one_method_and_one_raw_target(method: str, target: str) -> None:
    assert make_verifier().proof(method, target, signed(make_signer())) is None


def test_no_two_lists_of_fields_have_the_same_signature() -> None:
    signer = make_signer()
    proof = Proof(receiver="s2:b1", sender="ab", time="1.000", nonce="c" * 32, body_sha256="d" * 64)
    moved = dataclasses.replace(proof, receiver="s2:b1a", sender="b")
    assert signer.headers("GET", "/x", proof)[SIGNATURE] != signer.headers("GET", "/x", moved)[SIGNATURE]


def test_a_copy_of_a_request_is_not_taken_and_nor_is_one_after_the_window() -> None:
    clock = HandClock()
    verifier, fields = make_verifier(clock), signed(make_signer())
    let_in(verifier, fields)
    with pytest.raises(NotAllowed, match="was already received"):
        let_in(verifier, fields)
    clock.seconds += 119.0
    with pytest.raises(NotAllowed, match="was already received"):
        let_in(verifier, fields)
    clock.seconds += 3600.0
    with pytest.raises(WrongClock):
        let_in(verifier, fields)


def test_a_nonce_from_the_future_is_stored_as_long_as_its_request_is_valid() -> None:
    clock = HandClock()
    verifier, fields = make_verifier(clock), signed(make_signer(shift=119.0))
    let_in(verifier, fields)
    for _ in range(23):
        clock.seconds += 10.0
        with pytest.raises(NotAllowed, match="was already received"):
            let_in(verifier, fields)
    clock.seconds += 10.0
    with pytest.raises(WrongClock):
        let_in(verifier, fields)


def test_a_clock_that_is_set_back_does_not_make_old_requests_good_again() -> None:
    clock = HandClock()
    verifier, fields = make_verifier(clock), signed(make_signer())
    let_in(verifier, fields)
    clock.seconds += 1000.0
    let_in(verifier, signed(Signer(KEY, clock=clock, entropy=SystemEntropy())))
    clock.shift = -1000.0
    with pytest.raises(WrongClock):
        let_in(verifier, fields)


@pytest.mark.parametrize("shift", [121.0, -121.0, 3600.0, -86400.0])
def test_a_wrong_clock_is_told_from_a_wrong_key_with_the_time_of_the_receiver(shift: float) -> None:
    with pytest.raises(WrongClock) as caught:
        let_in(make_verifier(), signed(make_signer(shift=shift)))
    assert caught.value.details == {"now": 1_000_000.0}
    assert make_verifier().proof("POST", "/v1/posts?x=1", signed(make_signer(OTHER, shift=shift))) is None


@pytest.mark.parametrize("receiver", ["s2:b0", "s3:b1"])
def test_a_request_for_an_earlier_start_or_another_store_is_told_who_is_here(receiver: str) -> None:
    with pytest.raises(StalePeer) as caught:
        let_in(make_verifier(), signed(make_signer(), receiver=receiver))
    assert caught.value.details == {"store_id": "s2", "boot_id": "b1"}


def test_only_the_question_who_is_there_may_be_signed_for_anyone() -> None:
    signer = make_signer()
    let_in(make_verifier(), signed(signer, receiver="*", method="GET", target="/v1/host"), "GET", "/v1/host")
    for method, target in (("POST", "/v1/host"), ("GET", "/v1/host?x=1"), ("GET", "/v1/slots"), ("DELETE", "/v1/host")):
        with pytest.raises(NotAllowed, match="any receiver"):
            let_in(make_verifier(), signed(signer, receiver="*", method=method, target=target), method, target)


def test_the_memory_for_nonces_is_bounded_and_becomes_free_again() -> None:
    clock = HandClock()
    verifier = make_verifier(clock, max_nonces=10)
    for _ in range(10):
        let_in(verifier, signed(make_signer()))
    with pytest.raises(Overloaded):
        let_in(verifier, signed(make_signer()))
    clock.seconds += 200.0
    later = Signer(KEY, clock=clock, entropy=SystemEntropy())
    for _ in range(10):
        let_in(verifier, signed(later))


def test_a_reply_is_good_for_its_own_request_status_and_body_only() -> None:
    verifier, signer = make_verifier(), make_signer()
    mine, other = (signer.proof(b"", receiver="s2:b1") for _ in range(2))
    signature = verifier.sign_reply(mine, 200, BODY)[SIGNATURE]
    assert signer.is_reply(mine, 200, BODY, signature)
    assert not signer.is_reply(other, 200, BODY, signature)
    assert not signer.is_reply(mine, 500, BODY, signature)
    assert not signer.is_reply(mine, 200, BODY + b" ", signature)
    assert not signer.is_reply(mine, 200, BODY, "")
    assert not make_signer(OTHER).is_reply(mine, 200, BODY, signature)


def test_the_key_itself_is_good_as_a_bearer_token_in_one_form_only() -> None:
    verifier = make_verifier()
    assert verifier.bearer("Bearer " + "k" * 43)
    for text in ("", "k" * 43, "Bearer", "Bearer " + "o" * 43, "Bearer " + "k" * 43 + "\n", "Basic " + "k" * 43):
        assert not verifier.bearer(text), text


def test_no_field_carries_the_key() -> None:
    fields = signed(make_signer())
    assert "k" * 43 not in "".join(fields.values())
    assert {RECEIVER, SENDER, TIME, NONCE, SIGNATURE} < set(fields)

"""Signatures of requests and replies, made with the mesh key. This module does no I/O.

A request carries an HMAC-SHA256 of its method, raw target, receiver (`store_id:boot_id`), sender, time, nonce and
the SHA-256 of its body. The sender is a store id, or "" for a client. A reply carries an HMAC-SHA256 of the nonce of
the request, the status and the SHA-256 of its body. A host signs a reply only if the signature of the request is
valid.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from paglets.core.clock import Clock, Entropy
from paglets.core.errors import NotAllowed, Overloaded, StalePeer, WrongClock
from paglets.wire.keys import MeshKey

RECEIVER = "x-paglets-receiver"
SENDER = "x-paglets-sender"
TIME = "x-paglets-time"
NONCE = "x-paglets-nonce"
BODY = "x-paglets-body"
SIGNATURE = "x-paglets-signature"

ANYONE = "*"
IDENTITY_TARGET = "/v1/host"

WINDOW_SECONDS = 120.0
"""Largest accepted difference between the time of signing and the receiver's clock. It exceeds the longest wait of a
request, and all nonces that arrive in this time fit into memory."""

MAX_NONCES = 300_000
"""Maximum number of stored nonces, about 30 MB: 2,500 requests per second during WINDOW_SECONDS."""

_BUCKET_SECONDS = 30.0
_NONCE_BYTES = 16
_FORMS = {
    RECEIVER: re.compile(r"\*|[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}"),
    SENDER: re.compile(r"[A-Za-z0-9._-]{0,64}"),
    TIME: re.compile(r"[0-9]{1,11}\.[0-9]{3}"),
    NONCE: re.compile(r"[0-9a-f]{32}"),
    BODY: re.compile(r"[0-9a-f]{64}"),
    SIGNATURE: re.compile(r"[0-9a-f]{64}"),
}
_BEARER = re.compile(r"[Bb]earer ([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The signed header fields of a request."""

    receiver: str
    sender: str
    time: str
    nonce: str
    body_sha256: str

    @property
    def seconds(self) -> float:
        """Return the time of signing, in epoch seconds by the sender's clock."""
        return float(self.time)


def is_of_host(fields: Mapping[str, str]) -> bool:
    """Return True if a host claims to have signed this request; the signature is not checked."""
    return bool(fields.get(SENDER)) and all(form.fullmatch(fields.get(name, "")) for name, form in _FORMS.items())


def body_sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def receiver_name(store_id: str, boot_id: str) -> str:
    return f"{store_id}:{boot_id}"


class Signer:
    """A signer of one sender's requests. It also checks the signatures of the replies."""

    def __init__(self, key: MeshKey, *, clock: Clock, entropy: Entropy, sender: str = "") -> None:
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._sender = sender

    def proof(self, body: bytes, *, receiver: str, clock_offset: float = 0.0) -> Proof:
        """Return a new proof, valid for one request. `clock_offset` (seconds) is added to the time of this machine."""
        return Proof(
            receiver=receiver,
            sender=self._sender,
            time=f"{max(0.0, self._clock.wall() + clock_offset):.3f}",
            nonce=self._entropy.token(_NONCE_BYTES),
            body_sha256=body_sha256(body),
        )

    def headers(self, method: str, target: str, proof: Proof) -> dict[str, str]:
        """Return the header fields that carry `proof` and its signature."""
        return {
            RECEIVER: proof.receiver,
            SENDER: proof.sender,
            TIME: proof.time,
            NONCE: proof.nonce,
            BODY: proof.body_sha256,
            SIGNATURE: _request_mac(self._key, method, target, proof),
        }

    def is_reply(self, proof: Proof, status: int, body: bytes, signature: str) -> bool:
        """Return True if a holder of the key signed this reply to the request of `proof`."""
        return _same(signature, _reply_mac(self._key, proof.nonce, status, body))


class Verifier:
    """A verifier of incoming requests, for one start (`boot_id`) of one host.

    `proof` and `sign_reply` are thread-safe. `admit` stores nonces, so call it from one thread at a time.
    """

    def __init__(
        self,
        key: MeshKey,
        *,
        store_id: str,
        boot_id: str,
        clock: Clock,
        window_seconds: float = WINDOW_SECONDS,
        max_nonces: int = MAX_NONCES,
    ) -> None:
        self._key = key
        self._store_id = store_id
        self._boot_id = boot_id
        self._clock = clock
        self._window = window_seconds
        self._max_nonces = max_nonces
        self._buckets: dict[int, set[bytes]] = {}
        self._count = 0
        self._last_wall = clock.wall()
        self._last_monotonic = clock.monotonic()

    def proof(self, method: str, target: str, fields: Mapping[str, str]) -> Proof | None:
        """Return the proof in the header `fields` (lower-case names); None if it is absent, malformed or not valid."""
        values = {name: fields.get(name, "") for name in _FORMS}
        if not all(form.fullmatch(values[name]) for name, form in _FORMS.items()):
            return None
        proof = Proof(
            receiver=values[RECEIVER],
            sender=values[SENDER],
            time=values[TIME],
            nonce=values[NONCE],
            body_sha256=values[BODY],
        )
        return proof if _same(values[SIGNATURE], _request_mac(self._key, method, target, proof)) else None

    def admit(self, method: str, target: str, proof: Proof) -> None:
        """Check that a request with a valid signature is new, for this host, and signed within the window.

        Raises StalePeer, WrongClock, NotAllowed, Overloaded. It uses a time that never goes backwards, because old
        requests, whose nonces are no longer stored, would otherwise pass after the clock was set back.
        """
        self._check_receiver(method, target, proof.receiver)
        now = self._now()
        if abs(proof.seconds - now) > self._window:
            raise WrongClock(
                f"the clocks of sender and receiver differ by {abs(proof.seconds - now):.0f} s; "
                f"at most {self._window:.0f} s are allowed",
                now=now,
            )
        self._remember(proof, now)

    def bearer(self, authorization: str) -> bool:
        """Return True if the value of an Authorization header is the key. Call this only for peers on loopback."""
        match = _BEARER.fullmatch(authorization)
        return match is not None and self._key.matches(match[1])

    def sign_reply(self, proof: Proof, status: int, body: bytes) -> dict[str, str]:
        """Return the header field that signs a reply. `body`: the body that is sent (b"" for HEAD)."""
        return {SIGNATURE: _reply_mac(self._key, proof.nonce, status, body)}

    def _check_receiver(self, method: str, target: str, receiver: str) -> None:
        if receiver == receiver_name(self._store_id, self._boot_id):
            return
        if receiver != ANYONE:
            raise StalePeer(
                "the request is addressed to an earlier start of this host, or to another host",
                store_id=self._store_id,
                boot_id=self._boot_id,
            )
        if (method, target) != ("GET", IDENTITY_TARGET):
            raise NotAllowed(f"only GET {IDENTITY_TARGET} may be signed for any receiver")

    def _now(self) -> float:
        monotonic = self._clock.monotonic()
        self._last_wall = max(self._clock.wall(), self._last_wall + monotonic - self._last_monotonic)
        self._last_monotonic = monotonic
        return self._last_wall

    def _remember(self, proof: Proof, now: float) -> None:
        self._forget_before(now - self._window)
        bucket = self._buckets.setdefault(int(proof.seconds // _BUCKET_SECONDS), set())
        nonce = bytes.fromhex(proof.nonce)
        if nonce in bucket:
            raise NotAllowed("this request was already received, so this copy of it is refused")
        if self._count >= self._max_nonces:
            raise Overloaded("too many requests in the last two minutes; try again")
        bucket.add(nonce)
        self._count += 1

    def _forget_before(self, oldest: float) -> None:
        """Drop the nonces of requests that are now refused because of their time."""
        for start in [s for s in self._buckets if (s + 1) * _BUCKET_SECONDS <= oldest]:
            self._count -= len(self._buckets.pop(start))


def _request_mac(key: MeshKey, method: str, target: str, proof: Proof) -> str:
    parts = (method, target, proof.receiver, proof.sender, proof.time, proof.nonce, proof.body_sha256)
    return _mac(key, "paglets request 1", parts)


def _reply_mac(key: MeshKey, nonce: str, status: int, body: bytes) -> str:
    return _mac(key, "paglets reply 1", (nonce, str(status), body_sha256(body)))


def _mac(key: MeshKey, use: str, parts: tuple[str, ...]) -> str:
    """Return the HMAC of `parts`, each preceded by its length, so that two different lists never give the same text."""
    text = "".join(f"{len(part)}:{part}" for part in (use, *parts))
    return hmac.new(key.secret, text.encode("latin-1", "replace"), hashlib.sha256).hexdigest()


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("latin-1", "replace"), right.encode("latin-1", "replace"))

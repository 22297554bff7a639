"""Requests and replies of the routes for hand-offs, which move envelopes to another host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Envelope
from paglets.core.refs import BlobRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeEnvelope:
    """An envelope that was sent before as a blob. The content of the blob is the JSON of the envelope."""

    agent_id: str
    epoch: int
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeKey:
    """A hand-off, by the paglet and the epoch of its envelope."""

    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """A request to accept envelopes from one source host: `POST /v1/transfers`."""

    source: HostRef
    envelopes: tuple[Envelope, ...]
    large: tuple[LargeEnvelope, ...] = ()


TransferVerdict = Literal["taken", "refused", "settled", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswer:
    """The answer to the envelope of one paglet and epoch. A repeated request gets the same one, except after `missing`.

    `settled`: the receiver knows a higher epoch of the paglet, so it ignored the envelope. `missing`: the receiver
    lacks blobs of the envelope, and did not store it.
    """

    agent_id: str
    epoch: int
    verdict: TransferVerdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswers:
    """The reply to `Transfers`. An envelope that could not be stored has no answer, so the source sends it again."""

    answers: tuple[TransferAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """A request to settle hand-offs: `POST /v1/transfers/settle`.

    The receiver answers for each that it accepted the paglet under this epoch, or that it will never accept it.
    """

    source: HostRef
    asked: tuple[EnvelopeKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTransfers:
    """Hand-offs that the source will not send again, because it has their answers: `POST /v1/transfers/close`."""

    source: HostRef
    closed: tuple[EnvelopeKey, ...]

"""Records of the routes of hand-offs, which move envelopes to another host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Envelope
from paglets.core.refs import BlobRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeEnvelope:
    """An envelope whose JSON is the content of a blob, which was sent before."""

    agent_id: str
    epoch: int
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """The envelopes of one source: `POST /v1/transfers`."""

    source: HostRef
    envelopes: tuple[Envelope, ...]
    large: tuple[LargeEnvelope, ...] = ()


TransferVerdict = Literal["taken", "refused", "settled", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswer:
    """The answer for one epoch. It never changes, except `missing`.

    `settled`: a higher epoch is known, so this one changes nothing. `missing`: the receiver lacks blobs of the
    envelope, and stored nothing.
    """

    agent_id: str
    epoch: int
    verdict: TransferVerdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswers:
    """The reply to `Transfers`. An envelope that could not be stored has no answer; send it again."""

    answers: tuple[TransferAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """A request to settle an epoch: `POST /v1/transfers/settle`. The receiver says if it took it, or never takes it."""

    source: HostRef
    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedEpoch:
    """A hand-off that has ended for its source."""

    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTransfers:
    """The hand-offs that the source will never send again, because it has the answers: `POST /v1/transfers/close`."""

    source: HostRef
    closed: tuple[ClosedEpoch, ...]

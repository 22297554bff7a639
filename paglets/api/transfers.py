"""Records of the routes by which an envelope goes from host to host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Envelope
from paglets.core.refs import BlobRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeEnvelope:
    """An envelope whose JSON is the content of a blob that was sent before."""

    agent_id: str
    epoch: int
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """`POST /v1/transfers`: envelopes of one source."""

    source: HostRef
    envelopes: tuple[Envelope, ...]
    large: tuple[LargeEnvelope, ...] = ()


TransferVerdict = Literal["taken", "refused", "settled", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswer:
    """Of one epoch, the same for ever. `settled`: a higher one is known, so that this one changes nothing.

    `missing` alone is no answer for good: bytes that the envelope names are not here, and nothing was stored.
    """

    agent_id: str
    epoch: int
    verdict: TransferVerdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswers:
    """The reply to `Transfers`. An envelope that could not be stored has no answer: it is to be sent again."""

    answers: tuple[TransferAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """`POST /v1/transfers/settle`: was this epoch taken? If not, never take it."""

    source: HostRef
    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedEpoch:
    """A hand-off that is over for its source."""

    agent_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTransfers:
    """`POST /v1/transfers/close`: the source has the answers of these and will never send them again."""

    source: HostRef
    closed: tuple[ClosedEpoch, ...]

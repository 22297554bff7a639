"""What the tests of hand-offs that end early share: a peer that takes, or does not, and short ways to look."""

from __future__ import annotations

from typing import Any

from host_rig import Rig, host_ref

from paglets.api.groups import JobStatusReply
from paglets.api.paglets import Done, Located
from paglets.api.transfers import EnvelopeKey, Settle, TransferAnswer, TransferAnswers, Transfers
from paglets.codec.envelope import Envelope
from paglets.core.errors import InternalError, PagletsError
from paglets.core.record import from_json
from paglets.store import residence
from paglets.wire.request import Request, Response, reply_error
from tests.fakes.mesh import identity
from tests.invariants import sanity_check

W1 = host_ref("w1")


class Target:
    """The peer w1. `takes`: what it answers to transfers, an error or nothing at all where it is None; `settles`: what
    it says when it is asked to settle."""

    def __init__(self, rig: Rig, *, takes: Any = None, settles: Any = "refused") -> None:
        self.takes, self.settles = takes, settles
        self.got: list[Envelope] = []
        self.settled: list[EnvelopeKey] = []
        self.asking: list[Settle] = []
        routes = {
            "GET /v1/host": lambda body: identity("w1"),
            "POST /v1/transfers": self._transfers,
            "POST /v1/transfers/settle": self._settle,
            "POST /v1/transfers/close": lambda body: Done(),
            "POST /v1/paglets/locate": lambda body: Located(),
            "POST /v1/jobs/status": lambda body: JobStatusReply(),
        }
        self.table = rig.peer("w1", routes, tags=("fast",))
        self._network = rig.network

    def _transfers(self, body: Any) -> TransferAnswers:
        envelopes = from_json(Transfers, body).envelopes
        self.got += envelopes
        if isinstance(self.takes, PagletsError):
            raise self.takes
        verdicts = [] if self.takes is None else [self.takes] * len(envelopes)
        return TransferAnswers(
            answers=tuple(
                TransferAnswer(agent_id=each.agent_id, epoch=each.epoch, verdict=verdict)
                for each, verdict in zip(envelopes, verdicts, strict=False)
            )
        )

    def _settle(self, body: Any) -> TransferAnswers:
        self.asking.append(from_json(Settle, body))
        asked = self.asking[-1].asked
        self.settled += asked
        if isinstance(self.settles, PagletsError):
            raise self.settles
        return TransferAnswers(
            answers=tuple(
                TransferAnswer(agent_id=each.agent_id, epoch=each.epoch, verdict=self.settles) for each in asked
            )
        )

    def goes_away(self) -> None:
        self._network.leave(self.table.ref.url)

    def comes_back(self) -> None:
        self._network.join(self.table.ref.url, self.table.ref.store_id, self.table.handle)


def leave(rig: Rig, each: Envelope, target: Any = W1) -> None:
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.write(lambda tx: residence.leave(tx, each.agent_id, target, rig.now()))
    rig.run()


def status(rig: Rig, agent_id: str = "j1") -> tuple[str, int]:
    return rig.all("SELECT status, epoch FROM residence WHERE agent_id = ?", agent_id)[0]  # type: ignore[return-value]


def is_silent(rig: Rig, name: str = "w1") -> bool:
    return all(member.name != name for member in rig.host.gossip.online())


def checked(*rigs: Rig) -> list[str]:
    found: list[str] = []

    def look(left: list[Rig], views: dict[str, Any]) -> None:
        if left:
            first, *others = left
            first.store.read(lambda tx: look(others, views | {first.own.name: tx}))
        else:
            found.extend(sanity_check(views))

    look(list(rigs), {})
    return found


def lose_answers(rig: Rig, away: Rig) -> None:
    """`away` takes envelopes, and nobody hears of it."""

    def handle(request: Request) -> Response:
        response = away.answer_request(request)
        if request.target == "/v1/transfers":
            return reply_error(InternalError("cut"))
        return response

    rig.network.join(away.settings.url, away.settings.store_id, handle)

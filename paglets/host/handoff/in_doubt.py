"""In-doubt resolution: ask targets if they accepted hand-offs. A target that says no never accepts them later."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from paglets.api.transfers import EnvelopeKey, Settle, TransferAnswers, TransferVerdict
from paglets.core.refs import HostRef
from paglets.host.runtime.delivery import Settled, Traffic
from paglets.host.runtime.services import HostServices
from paglets.store.db import Tx
from paglets.store.rollbacks import Fence
from paglets.wire.request import Request, dump_json


class InDoubtTraffic(Traffic[Fence, TransferAnswers]):
    """The questions of one part of the host. An item names the paglet and the epoch of the envelope in question."""

    answers = TransferAnswers
    answer_seconds = 10.0

    def __init__(self, services: HostServices) -> None:
        self._services = services

    @abstractmethod
    def resolved(self, tx: Tx, asked: Fence, verdict: TransferVerdict) -> None:
        """Store the consequences of a target's answer."""

    def encode(self, tx: Tx, host: HostRef, items: Sequence[Fence]) -> Request:
        asked = tuple(EnvelopeKey(agent_id=each.agent_id, epoch=each.epoch) for each in items)
        body = dump_json(Settle(source=self._services.own, asked=asked))
        return Request(method="POST", target="/v1/transfers/settle", body=body, repeatable=True)

    def settle(self, tx: Tx, host: HostRef, items: Sequence[Fence], answer: TransferAnswers) -> Settled[Fence]:
        verdicts = {(each.agent_id, each.epoch): each.verdict for each in answer.answers}
        left_out = []
        for each in items:
            verdict = verdicts.get((each.agent_id, each.epoch))
            if verdict is None:
                left_out.append(each)
            else:
                self.resolved(tx, each, verdict)
        return Settled(left_out=tuple(left_out))

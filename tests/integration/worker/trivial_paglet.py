"""The smallest possible job: its duration is the cost of a start."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.agent import Paglet, PagletState


@dataclass(kw_only=True)
class TrivialState(PagletState):
    number: int = 0


class Trivial(Paglet[TrivialState]):
    State = TrivialState

    def compute_attempt(self) -> None:
        self.state.number += 1

"""A job as small as one can be: what starting it costs is what starting costs."""

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

"""Locate paglets in the whole mesh, this host included."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.api.paglets import Located
from paglets.core.refs import HostRef
from paglets.mesh.locator import Answer, Asked, Locator, merge
from paglets.store import residence
from paglets.store.db import Store, Tx


class PagletLocator:
    """A wrapper of `Locator` that also reads the rows of this host, because a paglet may be on this host itself."""

    def __init__(self, store: Store, own: HostRef, locator: Locator) -> None:
        self._store = store
        self._own = own
        self._locator = locator

    def locate(self, agent_ids: Iterable[str], done: Asked) -> None:
        """Like `Locator.locate`, but add the rows of this host. They are read after the other hosts have answered."""
        asked = tuple(agent_ids)

        def found(located: Located) -> None:
            mine = Answer(host=self._own, located=self._store.read(lambda tx: _known(tx, asked)))
            done(merge((mine,), located))

        self._locator.locate(asked, found)


def _known(tx: Tx, agent_ids: tuple[str, ...]) -> Located:
    rows = [residence.find(tx, agent_id) for agent_id in agent_ids]
    return Located(rows=tuple(row for row in rows if row is not None))

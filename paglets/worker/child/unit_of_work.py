"""What a paglet's code changed and its host does not have yet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from paglets.codec.tagged_json import decode_state, encode_state
from paglets.core.agent import Paglet
from paglets.core.errors import Invalid
from paglets.worker.protocol import Changes, Deliver, Intent, OutgoingPost, RegisteredFile
from paglets.worker.requests import NewClone, NewNote

MAX_KEY_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state object, and the tree of what it held."""

    state: Any
    tree: Any


class StateKeeper:
    """Knows which state the host has, by its tree."""

    def __init__(self, paglet: Paglet[Any]) -> None:
        self._paglet = paglet
        self.stored = encode_state(paglet.state)

    def snapshot(self) -> Snapshot:
        """To go back to. Raises Invalid where the state holds what cannot travel."""
        return Snapshot(self._paglet.state, encode_state(self._paglet.state))

    def restore(self, snapshot: Snapshot) -> None:
        """Undo what was done to the state since; in the same object, for code that holds it."""
        fresh = decode_state(type(self._paglet).State, snapshot.tree)
        state = snapshot.state
        for each in dataclasses.fields(fresh):
            object.__setattr__(state, each.name, getattr(fresh, each.name))
        self._paglet.state = state


class Pending(Protocol):
    """What is to be done here when deferred changes are committed, or when they never will be."""

    def keep(self) -> None: ...

    def drop(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class UnitOfWork:
    """One hook, handler or run of an entry, and its deferred changes.

    `at_once`: storage, posts and files go to the host when they are made. `deliver` is the message of a handler.
    """

    at_once: bool = False
    deliver: Deliver | None = None
    storage: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    posts: list[OutgoingPost] = field(default_factory=list)
    files: dict[str, RegisteredFile] = field(default_factory=dict)
    notes: list[NewNote] = field(default_factory=list)
    clones: list[NewClone] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    intent: Intent = field(default_factory=Intent)

    def put(self, key: str, tree: Any) -> None:
        self.deleted.discard(key)
        self.storage[key] = tree

    def delete(self, key: str) -> None:
        self.storage.pop(key, None)
        self.deleted.add(key)

    def changes(self, keeper: StateKeeper, *, with_state: bool = False) -> Changes:
        """All that is not stored yet; the state where it changed, or `with_state`. Raises Invalid."""
        tree = keeper.snapshot().tree
        has_state = with_state or tree != keeper.stored
        return replace(self.changes_beside_state(), has_state=has_state, state=tree if has_state else None)

    def changes_beside_state(self) -> Changes:
        """Return all that is not stored yet but the state."""
        return Changes(
            storage_set=dict(self.storage),
            storage_deleted=tuple(sorted(self.deleted)),
            posts=tuple(self.posts),
            files=tuple(self.files.values()),
            notes=tuple(self.notes),
            clones=tuple(self.clones),
        )

    def stored(self, keeper: StateKeeper, changes: Changes) -> None:
        """The host has committed `changes`."""
        if changes.has_state:
            keeper.stored = changes.state
        self.storage.clear()
        self.deleted.clear()
        self.posts.clear()
        self.files.clear()
        self.notes.clear()
        self.clones.clear()
        for each in self._take_pending():
            each.keep()

    def close(self) -> None:
        """What is not stored now never will be."""
        for each in self._take_pending():
            each.drop()

    def _take_pending(self) -> list[Pending]:
        taken, self.pending = self.pending, []
        return taken


def check_key(key: object) -> str:
    """`key` if it can name an entry of the storage, else Invalid."""
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Invalid(
            f"{key!r:.80} cannot be a key of the storage: use a string of 1 to {MAX_KEY_CHARACTERS} characters"
        )
    return key

"""Units of work: changes that the code of a paglet made, and that the host has not committed yet."""

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
    """A state object, and the JSON tree of its fields at the time of the snapshot."""

    state: Any
    tree: Any


class StateKeeper:
    """The state of a paglet. `stored`: the JSON tree of the state that the host has committed."""

    def __init__(self, paglet: Paglet[Any]) -> None:
        self._paglet = paglet
        self.stored = encode_state(paglet.state)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the state for `restore`. Raises Invalid if a value cannot be encoded."""
        return Snapshot(self._paglet.state, encode_state(self._paglet.state))

    def restore(self, snapshot: Snapshot) -> None:
        """Reset the fields of the state object to the snapshot. Keep the object, because user code may refer to it."""
        fresh = decode_state(type(self._paglet).State, snapshot.tree)
        state = snapshot.state
        for each in dataclasses.fields(fresh):
            object.__setattr__(state, each.name, getattr(fresh, each.name))
        self._paglet.state = state


class Effect(Protocol):
    """An action of this process that depends on deferred changes, such as the removal of a moved file.

    `commit` is called when the host has committed the changes, `rollback` when they are dropped.
    """

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class UnitOfWork:
    """The deferred changes of one entry or handler.

    `at_once`: True if all changes except the state are sent to the host immediately. `deliver`: the message that the
    handler handles; None if this is not the unit of work of a handler.
    """

    at_once: bool = False
    deliver: Deliver | None = None
    storage: dict[str, Any] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    posts: list[OutgoingPost] = field(default_factory=list)
    files: dict[str, RegisteredFile] = field(default_factory=dict)
    notes: list[NewNote] = field(default_factory=list)
    clones: list[NewClone] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    intent: Intent = field(default_factory=Intent)

    def put(self, key: str, tree: Any) -> None:
        self.deleted.discard(key)
        self.storage[key] = tree

    def delete(self, key: str) -> None:
        self.storage.pop(key, None)
        self.deleted.add(key)

    def changes(self, keeper: StateKeeper, *, with_state: bool = False) -> Changes:
        """Return the changes that are not committed yet. Raises Invalid if the state cannot be encoded.

        They include the state if it has changed or if `with_state` is True.
        """
        tree = keeper.snapshot().tree
        has_state = with_state or tree != keeper.stored
        return replace(self.changes_beside_state(), has_state=has_state, state=tree if has_state else None)

    def changes_beside_state(self) -> Changes:
        """Return the changes that are not committed yet, without the state."""
        return Changes(
            storage_set=dict(self.storage),
            storage_deleted=tuple(sorted(self.deleted)),
            posts=tuple(self.posts),
            files=tuple(self.files.values()),
            notes=tuple(self.notes),
            clones=tuple(self.clones),
        )

    def stored(self, keeper: StateKeeper, changes: Changes) -> None:
        """Record that the host has committed `changes`. Then perform the actions that depend on them (`effects`)."""
        if changes.has_state:
            keeper.stored = changes.state
        self.storage.clear()
        self.deleted.clear()
        self.posts.clear()
        self.files.clear()
        self.notes.clear()
        self.clones.clear()
        for each in self._take_effects():
            each.commit()

    def close(self) -> None:
        """Roll back the actions that depend on changes that were not committed."""
        for each in self._take_effects():
            each.rollback()

    def _take_effects(self) -> list[Effect]:
        taken, self.effects = self.effects, []
        return taken


def check_key(key: object) -> str:
    """Return `key` if it is a valid key of the storage. Raises Invalid otherwise."""
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Invalid(
            f"{key!r:.80} cannot be a key of the storage: use a string of 1 to {MAX_KEY_CHARACTERS} characters"
        )
    return key

"""Records of the route that delivers posts to other hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Post
from paglets.core.refs import HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledBelow:
    """An acknowledged prefix: the sender has the answers of all posts to this paglet below this number."""

    agent_id: str
    settled_below: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """The posts of one sender: `POST /v1/posts`. `settled`: by paglet, the posts that are acknowledged."""

    posts: tuple[Post, ...]
    settled: tuple[SettledBelow, ...]


PostVerdict = Literal["taken", "duplicate", "moved", "moving", "unknown", "missing"]
"""Outcome of one post. `missing`: the receiver lacks blobs of its artifacts, and stored nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswer:
    """The answer to one post. With `moved`, `host` and `epoch` tell where the paglet went."""

    n: int
    verdict: PostVerdict
    host: HostRef | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswers:
    """The reply to `Posts`, in the same order."""

    answers: tuple[PostAnswer, ...]

"""Records of the route by which hosts deliver posts to one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Post
from paglets.core.refs import HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledBelow:
    """Every post to this paglet with a number below has been acknowledged to the sender."""

    agent_id: str
    settled_below: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """`POST /v1/posts`: posts of one sender; `settled` says for each paglet what it has acknowledged."""

    posts: tuple[Post, ...]
    settled: tuple[SettledBelow, ...]


PostVerdict = Literal["taken", "duplicate", "moved", "moving", "unknown", "missing"]
"""`missing`: bytes of its artifacts are not here; nothing was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswer:
    """One for each post, in order. `host` and `epoch` come with `moved`."""

    n: int
    verdict: PostVerdict
    host: HostRef | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswers:
    """The reply to `Posts`."""

    answers: tuple[PostAnswer, ...]

"""Requests and replies of the route that delivers posts to other hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paglets.codec.envelope import Post
from paglets.core.refs import HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledBelow:
    """A mark for the sender's posts to one paglet: all posts with a number below `settled_below` were answered."""

    agent_id: str
    settled_below: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """Posts from one sender: `POST /v1/posts`. `settled`: for each paglet, which earlier posts were answered."""

    posts: tuple[Post, ...]
    settled: tuple[SettledBelow, ...]


PostVerdict = Literal["taken", "duplicate", "moved", "moving", "unknown", "missing"]
"""Outcome of one post. `missing`: the receiver lacks blobs of the post's artifacts, and did not store the post."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswer:
    """The answer to the post with the number `n`. `host`, `epoch`: with `moved`, the paglet's new host and epoch."""

    n: int
    verdict: PostVerdict
    host: HostRef | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswers:
    """The reply to `Posts`: one answer for each post, in the same order."""

    answers: tuple[PostAnswer, ...]

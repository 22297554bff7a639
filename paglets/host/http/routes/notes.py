"""The route for the notes of paglets to their users."""

from __future__ import annotations

from paglets.api.notes import Notes
from paglets.core.refs import check_group_id
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.store import notes

MAX_PAGE = 1_000
MOST_NUMBER = 999_999_999_999


def page(host: Host, asked: ParsedRequest) -> Notes:
    after = asked.number("after", 0, MOST_NUMBER) if "after" in asked.query else None
    limit = max(1, asked.number("limit", 100, MAX_PAGE))
    group_id = check_group_id(asked.query["group"]) if "group" in asked.query else None
    return host.services.store.read(lambda tx: notes.page(tx, after, limit, group_id))


ROUTES = (
    Route(
        method="GET",
        path="/v1/notes",
        takes=None,
        gives=Notes,
        about="notes to the user from paglets whose home is this host",
        answer=page,
    ),
)

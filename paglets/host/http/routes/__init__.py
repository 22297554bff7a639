"""Every route of a host, in one table; the server and the protocol's documentation come from it."""

from paglets.host.http.router import Route
from paglets.host.http.routes import artifacts, blobs, groups, kept, logs, mesh, notes, paglets, pull, slots

ROUTES: tuple[Route, ...] = (
    *mesh.ROUTES,
    *paglets.ROUTES,
    *groups.ROUTES,
    *slots.ROUTES,
    *blobs.ROUTES,
    *artifacts.ROUTES,
    *logs.ROUTES,
    *kept.ROUTES,
    *notes.ROUTES,
    *pull.ROUTES,
)

__all__ = ["ROUTES"]

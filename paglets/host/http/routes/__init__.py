"""The table of all routes of a host. The router and the documentation of the protocol use it."""

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

"""Requests and replies of every route, as records (`paglets.core.record`).

The one place where the shapes of the wire are written down: the host's routes parse with these, clients
and other hosts write with these. `paglets.host.http.routes.ROUTES` lists which route takes which.
"""

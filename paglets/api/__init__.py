"""Requests and replies of all routes, as records (`paglets.core.record`).

They define the wire format: routes parse these records, clients and other hosts write them. The table
`paglets.host.http.routes.ROUTES` lists the records of each route.
"""

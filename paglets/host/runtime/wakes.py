"""The names of the parts of a host that an event of the mesh wakes."""

ON_MESH_CHANGE = (
    "placer",
    "mailbox",
    "handoff",
    "rollback",
    "eviction",
    "outbox",
    "reconciliation",
    "stealing",
    "groups",
    "blob_pusher",
    "reverse_poller",
)
"""The parts to wake when gossip changes the table of hosts."""

ON_BLOB_PUSHED = ("mailbox", "handoff", "outbox", "stealing")
"""The parts to wake when another host has received all bytes of a blob."""

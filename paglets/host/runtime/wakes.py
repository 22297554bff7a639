"""The names of the parts of a host that an event of the mesh wakes, and how often parts may be woken."""

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

PAUSE_SECONDS = {"runs": 0.05, "stealing": 0.05, "groups": 0.25, "cleanup": 0.5}
"""The minimum time between two ticks of a part that no job waits for. Jobs that end meanwhile share a tick."""

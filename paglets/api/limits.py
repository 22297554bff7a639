"""Bounds of requests and replies."""

MAX_BODY_BYTES = 64 << 20
MAX_CALL_SECONDS = 60.0
MAX_GROUP_JOBS = 100_000
MAX_NOTE_CHARACTERS = 2_000
MAX_BATCH_POSTS = 500
MAX_BATCH_ENVELOPES = 500
MAX_PIECE_BYTES = 8 << 20
"""Largest piece of a blob in one request, which bounds the memory for a file of any size."""

MAX_ASKED_BLOBS = 1_000
LARGE_ENVELOPE_BYTES = 1 << 20
"""A longer envelope is sent as a blob."""

MAX_ENVELOPE_BYTES = 1 << 30
"""Bound of an envelope. One transaction stores it, so all of it is in memory at once."""

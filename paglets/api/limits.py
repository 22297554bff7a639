"""Maximum sizes and durations of requests and replies."""

MAX_BODY_BYTES = 64 << 20
MAX_CALL_SECONDS = 60.0
MAX_GROUP_JOBS = 100_000
MAX_NOTE_CHARACTERS = 2_000
MAX_BATCH_POSTS = 500
MAX_BATCH_ENVELOPES = 500
MAX_PIECE_BYTES = 8 << 20
"""Largest piece of a blob in one request, so that the transfer of a large file needs little memory."""

MAX_ASKED_BLOBS = 1_000
LARGE_ENVELOPE_BYTES = 1 << 20
"""A longer envelope is sent as a blob."""

MAX_ENVELOPE_BYTES = 1 << 30
"""Maximum size of an envelope. One transaction stores the whole envelope, so all of it must fit into memory."""

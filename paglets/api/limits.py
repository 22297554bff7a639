"""Bounds of the wire, and the number of its protocol: hosts mix where it is equal."""

PROTOCOL = 1
MAX_BODY_BYTES = 64 << 20
MAX_CALL_SECONDS = 60.0
MAX_GROUP_JOBS = 100_000
MAX_BATCH_POSTS = 500
MAX_BATCH_ENVELOPES = 500

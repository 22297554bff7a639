"""What both sides of the wire agree on beyond HTTP/1.1 itself."""

from __future__ import annotations

MOST_HEAD_BYTES = 16 << 10
CHUNK_BYTES = 64 << 10
JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

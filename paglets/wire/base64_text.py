"""Conversion of bytes to and from base64 text, for bytes in JSON."""

from __future__ import annotations

import base64
import binascii

from paglets.core.errors import BadRequest


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, what: str) -> bytes:
    """Return the bytes of a base64 text. Raises BadRequest, whose message begins with `what`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{what} is not base64: {error}") from None

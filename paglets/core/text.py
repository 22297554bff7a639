"""Text for people to read."""

from __future__ import annotations


def printable(text: object) -> str:
    """`text` on one line, with control and other invisible characters escaped: it may come from anywhere."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))

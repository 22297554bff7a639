"""Functions that format text for people."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

from paglets.core.command import this_command


def printable(text: object) -> str:
    """Return untrusted `text` on one line, with control and other invisible characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def escaped(text: str, kept: str = "\n\t") -> str:
    """Return `text` with control and other invisible characters escaped, except those in `kept`."""
    return "".join(letter if letter in kept else printable(letter) for letter in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a text such as `did you mean 'count'?` if one of the `known` words is similar to `word`, else ""."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""


def counted(count: int, one: str, many: str = "") -> str:
    """Return a text such as `1 job` or `1,200 jobs`. `many` is the plural; its default is `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def with_article(noun: object) -> str:
    """Return the noun with its indefinite article, such as `an int`. The first letters decide, so it can be wrong."""
    word = str(noun)
    vowel = word[:1].lower() in tuple("aeiou") and not word.lower().startswith(("uni", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {word}"


def type_of(value: object) -> str:
    """Return the name of a value's type with its article, such as `an int`, or `None` for None."""
    return "None" if value is None else with_article(type(value).__qualname__)


def listed(words: Iterable[str]) -> str:
    """Return the words as a list in a sentence: `a`, `a and b`, or `a, b and c`."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def failed_text(failed: int, cancelled: int) -> str:
    """Return a text such as `3 failed (2 cancelled)`. The number of failed jobs includes the cancelled ones."""
    return f"{failed:,} failed" + (f" ({cancelled:,} cancelled)" if cancelled else "")


def duration_text(seconds: float) -> str:
    """Return a duration such as `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min` or `4 d 3 h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def placed(error: OSError) -> str:
    """Return the path and the text of a system error, or only the text if the error has no path."""
    place = f"{printable(error.filename)}: " if error.filename else ""
    return place + (error.strerror or str(error))


def home_path(path: str | os.PathLike[str]) -> str:
    """Return the path with the user's home folder abbreviated to `~`."""
    home, text = os.path.expanduser("~"), os.fspath(path)
    inside = home != "/" and text.startswith(home.rstrip(os.sep) + os.sep)
    return f"~{text[len(home.rstrip(os.sep)) :]}" if inside else text


def command_name() -> str:
    """Return the command that runs this program in the current folder, such as `paglets` or `python3 paglets.pyz`."""
    return this_command()


def as_typed(text: str) -> str:
    """Return `text` with `paglets` in each quoted command replaced by the command that the user must type."""
    return text.replace("`paglets ", f"`{command_name()} ")


def as_advice(text: str) -> str:
    """Return a hint or next step with `paglets` replaced as in `as_typed`, also in an unquoted command at its start."""
    rest = text.removeprefix("paglets ")
    return as_typed(text) if rest == text else f"{command_name()} {as_typed(rest)}"

"""A host's directory: its lock, its log, its database, and who it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from paglets.core.clock import Entropy
from paglets.core.errors import StartFailed
from paglets.program import private_folder
from paglets.store.db import Store, Tx, open_store

MAX_LOG_BYTES = 10 << 20
"""The log is moved to host.log.1 when it is larger; so it never holds more than twice this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolder:
    """An open directory. `boot_count` grows with each start; `boot_id` is new for each."""

    path: Path
    store: Store
    store_id: str
    boot_id: str
    boot_count: int
    log: Callable[[str], None]


@contextmanager
def open_folder(path: Path, entropy: Entropy, fatal: Callable[[BaseException], None]) -> Iterator[HostFolder]:
    """The directory of one host, locked against a second one. Raises StartFailed, StoreDamaged."""
    try:
        private_folder(path)
        lock = (path / "lock").open("a")
    except OSError as error:
        raise StartFailed(
            f"the data directory {path} cannot be used: {error}; choose another with --data-dir"
        ) from error
    with lock:
        _lock(lock, path)
        log = Log(path / "host.log")
        store = open_store(path / "paglets.db", lambda error: fatal(error))
        try:
            boot_id = entropy.token()
            store_id, boot_count = store.write(lambda tx: _begin(tx, entropy))
            yield HostFolder(
                path=path, store=store, store_id=store_id, boot_id=boot_id, boot_count=boot_count, log=log.line
            )
        finally:
            store.close()
            log.close()


def _begin(tx: Tx, entropy: Entropy) -> tuple[str, int]:
    store_id = tx.value("SELECT value FROM meta WHERE key = 'store_id'")
    if store_id is None:
        store_id = entropy.token()
        tx.run("INSERT INTO meta VALUES ('store_id', ?)", store_id)
    boots = int(tx.value("SELECT value FROM meta WHERE key = 'boot_count'") or 0) + 1
    tx.run("INSERT OR REPLACE INTO meta VALUES ('boot_count', ?)", str(boots))
    return store_id, boots


def _lock(lock: IO[str], path: Path) -> None:
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        raise StartFailed(
            f"another host runs in {path}: end that one, or choose another --name or --data-dir"
        ) from error


class Log:
    """A host's log file, a line with a local time for each event; bounded. Any thread.

    A line for which the disk has no room is dropped: whoever has something to say must not fail for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: what could not be written is not tried again with the next line.
        self._file = os.fdopen(_open_log(path), "ab", buffering=0)

    def line(self, text: str) -> None:
        data = f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {text}\n".encode(errors="replace")
        with suppress(OSError):
            if not self._file.closed:
                self._file.write(data)
                self._keep_bounded()

    def _keep_bounded(self) -> None:
        if self._path.stat().st_size > MAX_LOG_BYTES:
            os.replace(self._path, self._path.with_suffix(".log.1"))
            with os.fdopen(_open_log(self._path), "ab", buffering=0) as new:
                # Under the same number: another thread may be writing to it.
                os.dup2(new.fileno(), self._file.fileno(), inheritable=False)

    def close(self) -> None:
        self._file.close()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

"""`python -m tests.bench.traced ARCHIVE FILE WORDS...`: run the archive, and note when it enters some functions.

Each note is a line of FILE: the machine's time in seconds, a name from NOTES or the name of an operation. The notes
exist only here: a host of a user has no code for them.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

NOTES = {
    "paglets.host.messaging.group_submission:GroupSubmission.prepare": "request",
    "paglets.host.handoff.sender:HandoffTraffic.encode": "sent",
    "paglets.host.handoff.sender:HandoffTraffic.settle": "acknowledged",
    "paglets.host.handoff.placer:Placer._place": "placing",
    "paglets.host.jobs.scheduler:Scheduler._grant": "granting",
    "paglets.host.jobs.runs:Runs.launch": "launch",
    "paglets.host.jobs.runs:Runs._started": "started",
    "paglets.host.jobs.runs:Runs._send_go": "go",
    "paglets.host.jobs.runs:Runs._perform": "operation",
    "paglets.host.jobs.runs:Runs._performed": "answered",
    "paglets.host.jobs.runs:Runs._ended": "exit",
    "paglets.host.jobs.runs:Runs._gone": "closed",
    "paglets.host.messaging.outbox:Outbox.encode": "outbox",
    "paglets.host.messaging.outbox:Outbox.settle": "delivered",
    "paglets.host.messaging.mailbox:Mailbox._serve_in_host": "collecting",
    "paglets.system.collector_ledger:Ledger.take": "accepted",
    "paglets.host.messaging.parked:ParkedRequests._try": "replying",
    "paglets.store.db:Store._commit_waiting": "commit",
}
"""Functions, each with the name of its note."""


def note_calls(path: str, write: Callable[[str], None]) -> None:
    """Replace a function by one that writes a note and calls it."""
    module, _, qualname = path.partition(":")
    holder: Any = importlib.import_module(module)
    *outer, name = qualname.split(".")
    for each in outer:
        holder = getattr(holder, each)
    inner, label = getattr(holder, name), NOTES[path]

    def noted(*args: Any, **named: Any) -> Any:
        write(label + (f":{args[3]}" if name in ("_perform", "_performed") else ""))
        return inner(*args, **named)

    setattr(holder, name, noted)


def main() -> int:
    archive, file, *words = sys.argv[1:]
    sys.path[:] = [archive, *(each for each in sys.path if each and os.path.abspath(each) != os.getcwd())]
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for path in NOTES:
        note_calls(path, lambda label: os.write(out, f"{time.time():.6f} {label}\n".encode()) and None)
    return int(importlib.import_module("paglets.__main__").main(words))


if __name__ == "__main__":
    sys.exit(main())

"""Jobs as authors write them: hooks with an event, returned values, two reports, unclosed databases."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.core.agent import HookEvent
from paglets.core.databases import HEADER
from paglets.core.messages import Message
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState

ROWS = 1000


def add_rows(path: Path) -> sqlite3.Connection:
    """Add ROWS rows and commit. The connection stays open, so that the rows are in the WAL file."""
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA wal_autocheckpoint=0")
        base.execute("CREATE TABLE IF NOT EXISTS numbers (n)")
        base.executemany("INSERT INTO numbers VALUES (?)", ((n,) for n in range(ROWS)))
    return base


def rows_of(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as base:
        return int(base.execute("SELECT count(*) FROM numbers").fetchone()[0])


@dataclass
class WrittenState(CollectingComputeJobState):
    how: str = ""
    path: str = ""


class Written(CollectingComputeJobPaglet[WrittenState]):
    """A job whose state names in `how` the method that does the work."""

    State = WrittenState

    def run_compute_job(self) -> Any:
        return getattr(self, self.state.how)()

    def returns(self) -> Any:
        return {"rows": 3, "raw": b"\x00"}

    def reports_and_returns(self) -> Any:
        self.report_compute_success("the report")
        return [1, 2]

    def returns_a_coroutine(self) -> Any:
        async def body() -> int:
            return 1

        return body()

    def reports_two_files(self) -> None:
        for name in ("first.txt", "second.txt"):
            Path(self.state.path, name).write_text(name)
            self.report_compute_artifact(Path(self.state.path, name), move=True)

    def travels(self) -> None:
        self.open = add_rows(Path("result.db"))
        ref = self.register_file("result.db")
        assert self.registered_files() == (ref,)
        add_rows(Path("result.db"))
        self.notify_user("info", "travels", "with a database")
        self.dispatch_to(self.state.home_host_name)

    def on_arrival(self, event: HookEvent) -> None:  # type: ignore[override]
        text = f"{event.kind} from {event.from_host}: {rows_of(self.file_path('result.db'))}"
        draft = Path(self.state.path + ".new")
        draft.write_text(text)
        draft.rename(self.state.path)

    def leaves_a_database_open(self) -> None:
        self.open = add_rows(Path("result.db"))
        rows = rows_of(self.upload_and_fetch("input.db"))
        self.report_compute_artifact("result.db", result={"input": rows}, move=True)
        assert list(Path().glob("result.db*")) == []

    def leaves_a_broken_database(self) -> None:
        Path("result.db").write_bytes(HEADER + b"x" * 5000)
        Path("result.db-wal").write_bytes(b"x" * 5000)
        self.report_compute_artifact("result.db", move=True)

    def upload_and_fetch(self, name: str) -> Path:
        return self.download_artifact(self.upload_artifact(name), "fetched/")

    def leaves_a_file_open(self) -> None:
        self.open_file = Path("result.csv").open("w")  # noqa: SIM115
        self.open_file.write("a,b\n")
        self.report_compute_artifact("result.csv")


class Asks(CollectingComputeJobPaglet[WrittenState]):
    """A paglet that speaks like code for the original library."""

    State = WrittenState

    def run_compute_job(self) -> Any:
        me = self.context.proxy(self.ref)
        try:
            me.send(Message("unknown"), timeout=10)
        except Exception as error:
            return [self.context.send(self.ref, Message("known"), timeout=10), str(error)]

    def handle_message(self, message: Message) -> Any:
        return "known" if message.kind == "known" else self.not_handled()


class Changed(CollectingComputeJobPaglet[WrittenState]):
    """A class whose version on the hosts differs from that of the submitting script."""

    State = WrittenState

    if os.environ.get("PAGLETS_JOB_ID"):

        async def run_compute_job(self) -> None:
            raise AssertionError

    else:

        def run_compute_job(self) -> None:
            raise AssertionError

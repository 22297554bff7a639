"""Paglets that clone themselves, rest, offer a service and notify their user, for the tests."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState
from paglets.core.messages import Message
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


@dataclass(kw_only=True)
class DiaryState(PagletState):
    log: list[str] = field(default_factory=list)


class Diary(Paglet[DiaryState]):
    """A paglet that records its hooks and messages. Each kind of message has a method `do_KIND`."""

    State = DiaryState
    service_name = "diary"

    def on_cloning(self) -> None:
        self._write("cloning")

    def on_clone(self) -> None:
        self._write("clone")

    def on_deactivating(self) -> None:
        self._write("deactivating")

    def on_activation(self) -> None:
        self._write("activation")

    def on_arrival(self) -> None:
        self._write("arrival")

    def run(self) -> None:
        with self.locked_state():
            self._write("run")

    def _write(self, what: str) -> None:
        self.state.log.append(f"{what} at {self.context.name}")

    def handle_message(self, message: Message) -> Any:
        handler = getattr(self, f"do_{message.kind}", None)
        return self.not_handled(message) if handler is None else handler(**message.args)

    def do_log(self) -> list[str]:
        return self.state.log

    def do_note(self, text: str) -> None:
        self.state.log.append(text)

    def do_keep(self, text: str) -> None:
        Path("kept.txt").write_text(text)
        self.register_file("kept.txt")
        self.storage["kept"] = text

    def do_kept(self) -> tuple[str, str]:
        return self.storage["kept"], self.file_path("kept.txt").read_text()

    def do_wait_for(self, path: str) -> None:
        Path(f"{path}.awaited").touch()
        while not Path(path).exists():
            time.sleep(0.01)

    def do_ask_all(self, service: str) -> dict[str, list[str]]:
        others = (each for each in self.context.lookup(service) if each.agent_id != self.agent_id)
        return {each.host_name: each.call("log") for each in others}

    def do_named(self, name: str) -> list[str]:
        return [each.host_name for each in self.context.find(name)]

    def do_tell(self, text: str, level: str) -> None:
        self.notify_user(text, level)


@dataclass(kw_only=True)
class TellingState(CollectingComputeJobState):
    pass


class Telling(CollectingComputeJobPaglet[TellingState]):
    State = TellingState

    def run_compute_job(self) -> None:
        self.notify_user(f"half of {self.state.job_key} is done", "warning")

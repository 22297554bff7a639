"""Paglets that clone themselves, rest and notify their user, for tests with real processes."""

from __future__ import annotations

from typing import Any

from worker_paglets import Plain

from paglets.core.messages import Message
from paglets.system.services import ServiceContract, ServicePaglet


class Cloner(Plain):
    def on_cloning(self) -> None:
        self.state.words.append("cloning")

    def on_clone(self) -> None:
        self.state.words.append("clone")

    def on_deactivating(self) -> None:
        self.state.words.append("deactivating")

    def on_activation(self) -> None:
        self.state.words.append("activation")

    def handle_message(self, message: Message) -> Any:
        if message.kind == "twice":
            return [self.clone("one").agent_id, self.clone_to("w1").agent_id]
        if message.kind == "clone and fail":
            self.clone()
            raise ValueError("after it")
        if message.kind == "rest":
            self.deactivate(message.get("seconds"))
            self.state.words.append("asked to rest")
            return None
        if message.kind == "rest when woken":
            self.deactivate()
            return self.wait_state(lambda state: state.number == 7)
        if message.kind == "tell":
            self.notify_user("x" * 3000, "error")
            self.notify_user(message["text"], message["level"])
            return None
        if message.kind == "priority":
            self.post(self.ref, Message("later", priority=7))
            return message.priority
        return self.not_handled(message)

    def run(self) -> None:
        self.state.number = 4
        self.notify_user("running")
        self.clone()
        self.state.number = 5


class Asker(Plain):
    def on_creation(self) -> None:
        for each in (*self.context.find("bob"), *self.context.lookup("adder")):
            self.state.words.append(f"{each.agent_id} at {each.host_name}")


class Offering(ServicePaglet[Any]):
    contract = ServiceContract("offer")


class Maker(Plain):
    def on_creation(self) -> None:
        self.context.create(Offering)
        self.context.create(Plain)

"""Code of the simulated classes: jobs that succeed, fail, crash and linger, and counters that take posts.

A job's state describes its behaviour: `{"key", "plan": [a name of PLANS for each attempt], "seconds", "posts":
[counters], "target": host or null}`. A counter's storage counts how often it handled each post. `"files"` in any state
maps the name of each file that must exist to its SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paglets.codec.envelope import WireMessage
from paglets.core.clock import Entropy
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.slots.states import FINAL
from paglets.worker.protocol import (
    CallOut,
    Changes,
    Commit,
    Create,
    Deliver,
    EntryDone,
    Fault,
    Go,
    Intent,
    OutgoingPost,
    Report,
)
from tests.simulator.counters import COUNTER_CLASS, CounterScripts, post_message
from tests.simulator.filescripts import COURIER_CLASS, FileScripts
from tests.simulator.seen import Seen
from tests.simulator.wishes import Answer, Ask, Die, LoseZygote, Pause, Routine
from tests.simulator.witness import LEFT, Witness

JOB_CLASS = "simulated:Job"

FETCH_TRIES = 3


class SimScripts:
    """The code of all machines of a run."""

    def __init__(self, entropy: Entropy, witness: Witness, handler_trouble: float) -> None:
        self._entropy = entropy
        self._witness = witness
        self.files = FileScripts(entropy, witness)
        self._counters = CounterScripts(entropy, witness, self.files, handler_trouble)

    def began(self, go: Go, wrong: list[str]) -> None:
        self._witness.process_began(go)
        self._witness.files_found(go, wrong)

    def left(self, go: Go) -> None:
        self._witness.process_left(go)

    def entry(self, go: Go) -> Routine:
        if go.entry == "attempt":
            return self._attempt(go)
        if go.class_name == COURIER_CLASS and go.entry in ("creation", "arrival"):
            return self.files.carry(go)
        if go.entry in go.state.get("hooks", {}):
            return self._hook_of_job(go, go.state["hooks"][go.entry])
        return _hook()

    def handler(self, go: Go, state: dict[str, Any], deliver: Deliver) -> Routine:
        return self._counters.handler(go, state, deliver)

    # Jobs.

    def _attempt(self, go: Go) -> Routine:
        plan, attempt = go.state["plan"], go.stamp.attempt
        yield Pause(seconds=go.state["seconds"] * self._entropy.uniform(0.5, 1.5))
        yield from {**PLANS, **PLANS_OF_SOME}[plan[min(attempt, len(plan)) - 1]](self, go)

    def succeed(self, go: Go) -> Routine:
        result = {"key": go.state["key"], "attempt": go.stamp.attempt}
        if int(go.stamp.token[:2], 16) % 2:
            # Report at the end, as the classes of paglets do in a warm worker.
            self._witness.saw(Seen.LAST_REPORT)
            yield Ask(op="done", args=EntryDone(report=Report(success=True, result=result)))
            return
        yield from self.report(go, result)
        yield from _done()

    def report(self, go: Go, result: Any) -> Routine:
        answer = yield Ask(op="report", args=Report(success=True, result=result))
        self._witness.reported(go, answer)

    def report_artifact(self, go: Go, times: int = 1) -> Routine:
        for _ in range(times):
            answer = yield from self.files.report(go, move=self._entropy.pick(2) == 0)
            self._witness.reported(go, answer)
        yield from _done()

    def report_artifact_twice(self, go: Go) -> Routine:
        yield from self.report_artifact(go, times=2)

    def upload_and_succeed(self, go: Go) -> Routine:
        for _ in range(2):
            artifact_id, sha256 = yield from self.files.upload(go)
            yield from self.files.look(go, artifact_id, sha256)
            if self._entropy.pick(2):
                yield from self.files.delete(artifact_id)
        yield from self.succeed(go)

    def move_with_files(self, go: Go) -> Routine:
        files = dict(go.state.get("files", {}))
        for name, mode in (("kept", "copy"), ("moved", "move")):
            files[name] = yield from self.files.register_now(go, name, mode)
        yield from self.report(go, {"key": go.state["key"], "attempt": go.stamp.attempt})
        target = go.state["target"]
        intent = Intent() if target is None else Intent(move=from_json(HostRef, target))
        changes = Changes(has_state=True, state={**go.state, "files": files})
        yield Ask(op="done", args=EntryDone(changes=changes, intent=intent))

    def leave_with_a_file(self, go: Go) -> Routine:
        """Finish and leave with a file, which must survive: see `Witness.leaves`."""
        sha256 = yield from self.files.register_now(go, LEFT, ("move", "copy")[self._entropy.pick(2)])
        yield from self.report(go, {"key": go.state["key"], "attempt": go.stamp.attempt})
        files = {**go.state.get("files", {}), LEFT: sha256}
        intent = Intent(move=from_json(HostRef, go.state["target"]))
        changes = Changes(has_state=True, state={**go.state, "files": files})
        answer = yield Ask(op="done", args=EntryDone(changes=changes, intent=intent))
        if not answer.code:
            self._witness.leaves(go, sha256)

    def _hook_of_job(self, go: Go, how: str) -> Routine:
        """Run a hook of a job. `how` is `default` if the class has no such hook.

        With `raises` and `dies` the first run fails and the next one returns.
        """
        yield Pause(seconds=0.01)
        ended = go.system["compute_status"] in FINAL
        fails = how in ("raises", "dies") and self._witness.may_trouble(f"{go.entry} of {go.stamp.agent_id}", 1)
        if fails and ended:
            self._witness.saw(Seen.HOOK_FAILED)
        if fails and how == "dies":
            raise Die(code=3)
        if fails:
            yield from _done(Fault(cause="exception", message="planned"))
            return
        if ended and go.entry == "arrival" and how != "default":
            self._witness.takes(go)
        answer = yield Ask(op="done", args=EntryDone(is_default=how == "default"))
        if answer.code:
            raise Die(code=9)

    def send_and_succeed(self, go: Go) -> Routine:
        for number, tree in enumerate(go.state["posts"]):
            target = from_json(ProxyRef, tree)
            post_id = f"{go.stamp.agent_id}:{go.stamp.attempt}:{number}"
            self._witness.post_tried(post_id)
            artifact = yield from self.files.attach(go, target)
            post = OutgoingPost(target=target, message=post_message(post_id, [], (artifact,)))
            answer = yield Ask(op="commit", args=Commit(changes=Changes(posts=(post,))))
            self.files.told(go, answer, "a post")
            self._witness.saw(Seen.POSTED)
            self._witness.post_acknowledged(post_id, 0, go.host.name)
            self._witness.carries(artifact.artifact_id, target.agent_id, go.host.name)
        yield from self.succeed(go)

    def fetch_and_succeed(self, go: Go) -> Routine:
        for artifact_id in go.state.get("fetches", ()):
            for _ in range(FETCH_TRIES):
                found = yield from self.files.look(go, artifact_id, "")
                if found:
                    break
                yield Pause(seconds=2.0)
        yield from self.succeed(go)

    def report_twice(self, go: Go) -> Routine:
        yield from self.report(go, {"key": go.state["key"], "attempt": go.stamp.attempt})
        yield from self.report(go, {"key": go.state["key"], "attempt": -1})
        yield from _done()

    def report_and_crash(self, go: Go) -> Routine:
        yield from self.report(go, {"key": go.state["key"], "attempt": go.stamp.attempt})
        raise Die(code=5)

    def fail_for_good(self, go: Go) -> Routine:
        answer = yield Ask(op="report", args=Report(success=False, fault=Fault(cause="exception", message="planned")))
        self._witness.reported(go, answer)
        yield from _done()

    def post_and_succeed(self, go: Go) -> Routine:
        for number, target in enumerate(go.state["posts"]):
            post_id = f"{go.stamp.agent_id}:{go.stamp.attempt}:{number}"
            self._witness.post_tried(post_id)
            post = OutgoingPost(target=from_json(ProxyRef, target), message=post_message(post_id, []))
            answer = yield Ask(op="commit", args=Commit(changes=Changes(posts=(post,))))
            if not answer.code:
                self._witness.post_acknowledged(post_id, 0, go.host.name)
        yield from self.succeed(go)

    def call_and_succeed(self, go: Go) -> Routine:
        for target in go.state["posts"]:
            call = CallOut(
                target=from_json(ProxyRef, target), message=WireMessage(kind="get", args={}), timeout_seconds=5.0
            )
            yield Ask(op="call", args=call)
        yield from self.succeed(go)

    def move_after(self, go: Go) -> Routine:
        yield from self.report(go, {"key": go.state["key"], "attempt": go.stamp.attempt})
        target = go.state["target"]
        intent = Intent() if target is None else Intent(move=from_json(HostRef, target))
        yield Ask(op="done", args=EntryDone(intent=intent))

    def linger(self, go: Go) -> Routine:
        yield Pause(seconds=self._entropy.uniform(5.0, 20.0))
        yield from self.succeed(go)

    def checkpoint_and_crash(self, go: Go) -> Routine:
        if go.state.get("checkpointed"):
            yield from self.succeed(go)
            return
        self._witness.began_from_the_start(go)
        files = dict(go.state.get("files", {}))
        files["kept"] = yield from self.files.register_now(go, "kept", "copy")
        state = {**go.state, "checkpointed": True, "files": files}
        answer = yield Ask(op="checkpoint", args=Commit(changes=Changes(has_state=True, state=state)))
        if not answer.code:
            self._witness.checkpointed(go)
        raise Die(signal=11)

    def create_and_succeed(self, go: Go) -> Routine:
        files = yield from self.files.some_file(go)
        new = Create(
            nth=1,
            class_name=COUNTER_CLASS,
            kind="paglet",
            state={"count": 0, "files": {file.name: file.sha256 for file in files}},
            bundle=None if go.code is None else go.code.bundle,
            files=files,
        )
        answer = yield Ask(op="create", args=new)
        self.files.told(go, answer, "a paglet")
        yield from self.succeed(go)


def _hook() -> Routine:
    yield Pause(seconds=0.01)
    yield from _done()


def _done(fault: Fault | None = None) -> Routine:
    answer: Answer = yield Ask(op="done", args=EntryDone(fault=fault))
    if answer.code:
        raise Die(code=9)


def _raise(scripts: SimScripts, go: Go) -> Routine:
    yield from _done(Fault(cause="exception", message="planned"))


def _return(scripts: SimScripts, go: Go) -> Routine:
    yield from _done()


def _exit(scripts: SimScripts, go: Go) -> Routine:
    yield Pause(seconds=0.001)
    raise Die(code=3)


def _killed(scripts: SimScripts, go: Go) -> Routine:
    yield Pause(seconds=0.001)
    raise Die(signal=6)


def _never(scripts: SimScripts, go: Go) -> Routine:
    while True:
        yield Pause(seconds=1e5)


def _zygote(scripts: SimScripts, go: Go) -> Routine:
    if scripts._witness.may_trouble(f"zygote {go.stamp.agent_id}", 1):
        scripts._witness.killers[(go.system["group_id"], go.system["job_key"])] = None
        yield LoseZygote()
    yield from scripts.succeed(go)


PLANS: dict[str, Callable[[SimScripts, Go], Routine]] = {
    "success": SimScripts.succeed,
    "twice": SimScripts.report_twice,
    "reported": SimScripts.report_and_crash,
    "posts": SimScripts.post_and_succeed,
    "calls": SimScripts.call_and_succeed,
    "moves": SimScripts.move_after,
    "slow": SimScripts.linger,
    "creates": SimScripts.create_and_succeed,
    "zygote": _zygote,
    "checkpoint": SimScripts.checkpoint_and_crash,
    "failure": SimScripts.fail_for_good,
    "exception": _raise,
    "nothing": _return,
    "exit": _exit,
    "signal": _killed,
    "artifact": SimScripts.report_artifact,
    "artifacts": SimScripts.report_artifact_twice,
    "uploads": SimScripts.upload_and_succeed,
    "files": SimScripts.move_with_files,
    "sends": SimScripts.send_and_succeed,
    "fetches": SimScripts.fetch_and_succeed,
    "silent": _never,
    "forever": _never,
}

FOREVER = "forever"
"""A plan that ends only if the job is cancelled."""

LEAVES = "leaves"
"""A plan of some runs only. Its random choices are separate from those of the other plans."""

HOOKS_OF_JOBS = {
    "arrival": ("default", "default", "returns", "raises", "dies"),
    "dispatching": ("default", "default", "raises"),
}
"""The behaviours of hooks of a job that leaves with a file."""

PLANS_OF_SOME: dict[str, Callable[[SimScripts, Go], Routine]] = {LEAVES: SimScripts.leave_with_a_file}

SUCCEEDS = (
    LEAVES,
    *("success", "twice", "reported", "posts", "calls", "moves", "slow", "creates", "zygote"),
    *("artifact", "artifacts", "uploads", "files", "sends", "fetches"),
)
"""Plans whose first completed attempt succeeds."""

"""A record of events outside the hosts: what they acknowledged and what their processes did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paglets.core.refs import FileRef
from paglets.worker.protocol import Go, RegisteredFile
from tests.simulator.seen import Seen
from tests.simulator.story import Story
from tests.simulator.wishes import Answer

LEFT = "left"  # The name of the file with which a finished job is to move.


@dataclass(slots=True, kw_only=True)
class Source:
    """A file that a paglet registered. `changed`: it was written to later. `arrived`: its bytes were seen on another
    host."""

    agent_id: str
    epoch: int
    host: str
    file: FileRef
    changed: bool = False
    arrived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFile:
    """The file with which a finished job of a group is to move."""

    sha256: str
    job_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A file that a job moved into its result: its collector, and the job whose record must name it.

    `host` is where the file was, and `generation` that of the copy which reported.
    """

    artifact_id: str
    collector: str
    job_key: str
    generation: int
    host: str


class Witness:
    """A log of acknowledgements and events. `violations` collects broken guarantees, `seen` counts events.

    `killers` are the group and key of jobs that killed their zygote, and `victims` those of jobs that were killed.
    `carried` maps artifacts of acknowledged posts to their owners, `kept` maps those of clients to their hosts, and
    `deleted` has those that somebody asked to delete.
    `given` maps paths to files that went with a result. `spoiled` has each store and hash that wrong bytes were sent
    for. `left` has the file of each finished job that was to move. `taken` has the jobs whose hook took the file, or
    was about to report that. `is_noted` returns True if a host recorded why a copy of a job was made.
    """

    def __init__(self, story: Story) -> None:
        self.violations: list[str] = []
        self.groups: dict[str, tuple[str, ...]] = {}
        self.cancelled: dict[tuple[str, str], None] = {}
        self.killers: dict[tuple[str, str], None] = {}
        self.victims: dict[tuple[str, str], None] = {}
        self.posts: dict[str, int] = {}
        self.tried: dict[str, None] = {}
        self.paglets: dict[str, None] = {}
        self.carried: dict[str, str] = {}
        self.kept: dict[str, str] = {}
        self.deleted: dict[str, None] = {}
        self.given: dict[str, Given] = {}
        self.spoiled: dict[tuple[str, str], None] = {}
        self.left: dict[str, LeftFile] = {}
        self.taken: dict[str, None] = {}
        self.seen: Counter[Seen] = Counter()
        self.sources: dict[str, Source] = {}
        self.is_noted: Callable[[Go], bool] = lambda go: True
        self._story = story
        self._alive: dict[str, Go] = {}
        self._attempts: dict[tuple[str, int, int], None] = {}
        self._accepted: dict[tuple[str, int, int], None] = {}
        self._suspects: dict[tuple[str, int], None] = {}
        self._checkpointed: dict[str, None] = {}
        self._troubles: dict[str, int] = {}
        self._posted_on: dict[str, str] = {}
        self._carried_from: dict[str, str] = {}
        self._counts: dict[str, tuple[int, str]] = {}

    def saw(self, what: Seen) -> None:
        self.seen[what] += 1

    def violated(self, what: str) -> None:
        self._story.tell("!", what)
        self.violations.append(what)

    # Clients.

    def group_acknowledged(self, group_id: str, keys: tuple[str, ...]) -> None:
        self.groups[group_id] = keys

    def cancel_acknowledged(self, group_id: str, job_key: str) -> None:
        self.cancelled[(group_id, job_key)] = None

    def post_tried(self, post_id: str) -> None:
        self.tried[post_id] = None

    def post_acknowledged(self, post_id: str, onward: int, host: str = "") -> None:
        """Record a post that starts a chain of `onward` further posts. `host` is that of a sending paglet, if any."""
        self.posts[post_id] = onward
        if host:
            self._posted_on[post_id] = host

    def paglet_acknowledged(self, agent_id: str) -> None:
        self.paglets[agent_id] = None

    def carries(self, artifact_id: str, owner: str, host: str = "") -> None:
        """Record an artifact that a post brings to `owner`. `host` is that of the sending paglet, if any."""
        self.carried[artifact_id] = owner
        if host:
            self._carried_from[artifact_id] = host

    def disk_gone(self, host: str) -> None:
        """Drop everything that only the disk of this machine had."""
        for post_id, on in self._posted_on.items():
            if on == host:
                self.posts.pop(post_id, None)
        for artifact_id, on in self._carried_from.items():
            if on == host:
                self.carried.pop(artifact_id, None)
        self.given = {path: given for path, given in self.given.items() if given.host != host}
        self._counts = {agent_id: (count, on) for agent_id, (count, on) in self._counts.items() if on != host}
        self.sources = {path: source for path, source in self.sources.items() if source.host != host}

    # Processes.

    def process_began(self, go: Go) -> None:
        other = self._alive.get(go.stamp.agent_id)
        if other is not None:
            self.violated(f"two processes of {go.stamp.agent_id}: on {other.host.name} and on {go.host.name}")
        self._alive[go.stamp.agent_id] = go
        what = f"{go.entry} of {go.stamp.agent_id}"
        if go.entry == "attempt":
            key = (go.stamp.agent_id, go.stamp.generation, go.stamp.attempt)
            if key in self._attempts:
                self.violated(f"attempt {go.stamp.attempt} of {go.stamp.agent_id} ran twice")
            self._attempts[key] = None
            if go.stamp.generation > 1:
                self.saw(Seen.ANEW)
                if not self.is_noted(go):
                    self.violated(
                        f"I5 {what} of generation {go.stamp.generation}: nobody noted that the last one is lost"
                    )
            what += f", attempt {go.stamp.attempt} of job {go.state['key']}"
        self._story.tell(go.host.name, f"process: {what}")

    def process_left(self, go: Go) -> None:
        other = self._alive.get(go.stamp.agent_id)
        if other is not None and other.stamp.token == go.stamp.token:
            del self._alive[go.stamp.agent_id]

    def attempt_begins(self, go: Go, is_alone: bool) -> None:
        """Check that the first attempt after a crash in a warm worker runs under a zygote of its own."""
        key = (go.stamp.agent_id, go.stamp.generation)
        if key not in self._suspects:
            return
        del self._suspects[key]
        self.saw(Seen.ALONE_AGAIN)
        if not is_alone:
            self.violated(f"{go.host.name}: {go.stamp.agent_id} runs beside others after a crash of its host")

    def crashed_in_worker(self, go: Go) -> None:
        """Record a job that a warm worker ran, or was about to run, as its host crashed."""
        self._suspects[(go.stamp.agent_id, go.stamp.generation)] = None

    def killed(self, go: Go) -> None:
        """Record a job whose process was killed from outside, so that its attempt may fail."""
        self.victims[(go.system["group_id"], go.system["job_key"])] = None

    def reported(self, go: Go, answer: Answer) -> None:
        key = (go.stamp.agent_id, go.stamp.generation, go.stamp.attempt)
        accepted = not answer.code and answer.value["accepted"]
        self._story.tell(go.host.name, f"report of job {go.state['key']}: {answer.code or accepted}")
        if accepted and key in self._accepted:
            self.violated(f"two outcomes were accepted of attempt {key[2]} of {key[0]}")
        if accepted:
            self._accepted[key] = None

    def checkpointed(self, go: Go) -> None:
        self._checkpointed[go.stamp.agent_id] = None

    def began_from_the_start(self, go: Go) -> None:
        if go.stamp.agent_id in self._checkpointed:
            self.violated(f"the checkpoint of {go.stamp.agent_id} was acknowledged and is lost")

    def counted(self, go: Go, count: int) -> None:
        """Record a count that a host has committed for a counter."""
        self._counts[go.stamp.agent_id] = (count, go.host.name)

    def found_count(self, go: Go, count: int) -> None:
        """Check the count in the memory of a process that is about to handle a message."""
        known, host = self._counts.get(go.stamp.agent_id, (0, ""))
        if count < known:
            self.violated(
                f"{go.host.name}: {go.stamp.agent_id} has the count {count}, and {known} was stored on {host}"
            )

    # Bytes.

    def files_found(self, go: Go, wrong: list[str]) -> None:
        """Check the files of a process that started. `wrong` describes those that differ."""
        for text in wrong:
            self.violated(f"{go.host.name}: {text}")
        names = {each.file.name: each.file.sha256 for each in go.files}
        if go.code is not None:
            self.saw(Seen.CODE)
        if go.files and go.entry == "attempt":
            self.saw(Seen.INPUT)
        for name, sha256 in go.state.get("files", {}).items():
            # The file of a finished job may have become an artifact. `byteverdict` looks for it there.
            if names.get(name) != sha256 and name != LEFT:
                self.violated(f"{go.host.name}: the file {name} of {go.stamp.agent_id} was registered and is lost")
        for source in self.sources.values():
            if source.agent_id == go.stamp.agent_id and source.host != go.host.name and not source.arrived:
                source.arrived = names.get(source.file.name) == source.file.sha256
                if source.arrived:
                    self.saw(Seen.MOVED if source.file.mode == "move" else Seen.COPIED)

    def registers(self, go: Go, registered: RegisteredFile) -> None:
        """Record a file that a paglet is about to register."""
        self.sources[registered.source_path] = Source(
            agent_id=go.stamp.agent_id, epoch=go.stamp.epoch, host=go.host.name, file=registered.file
        )

    def leaves(self, go: Go, sha256: str) -> None:
        """Record that a host accepted the move of a finished job with this file."""
        self.left[go.stamp.agent_id] = LeftFile(sha256=sha256, job_key=go.state["key"])

    def takes(self, go: Go) -> None:
        """Record that the hook of a finished job is about to return. If it has the job's file, the file is handled."""
        if any(each.file.name == LEFT for each in go.files):
            self.taken[go.stamp.agent_id] = None

    def changes_source(self, path: str) -> None:
        self.sources[path].changed = True

    def may_trouble(self, what: str, most: int) -> bool:
        """Return True if this event may fail once more, and count it."""
        times = self._troubles.get(what, 0)
        self._troubles[what] = times + 1
        return times < most

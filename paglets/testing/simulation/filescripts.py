"""What simulated processes do with bytes: publish them, register them, look at those that came with a message."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from paglets.core.clock import Entropy
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef
from paglets.testing.simulation.content import PIECE_BYTES, PIN_SECONDS, blob_of, content, some_size
from paglets.testing.simulation.launcher import Answer, Ask, Die, Pause, ReadBlob, Stage, Wish, WriteFile
from paglets.testing.simulation.witness import Witness
from paglets.worker.protocol import (
    Changes,
    Commit,
    DeleteArtifact,
    Deliver,
    EntryDone,
    FetchArtifact,
    Go,
    Intent,
    NewArtifact,
    Publish,
    RegisteredFile,
    Room,
)

COURIER_CLASS = "simulated:Courier"
LOAD = "load"
"""The name of the file that a courier carries; it has another one on every host."""

NO_ROOM = ("no_room", "store_full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A blob that the host has said it keeps, at that second of the run."""

    blob: BlobRef
    at: float


class FileScripts:
    """`made` counts the bytes that processes of this run made, so that all are different."""

    def __init__(self, entropy: Entropy, witness: Witness) -> None:
        self._entropy = entropy
        self._witness = witness
        self._made = 0

    def bytes_of(self, go: Go) -> bytes:
        """Other bytes each time."""
        self._made += 1
        return content(f"{go.stamp.token} {self._made}", some_size(self._entropy, PIECE_BYTES))

    # Publishing.

    def publish(self, go: Go, data: bytes) -> Generator[Wish, Answer, Published]:
        """Make the bytes a blob of this host; waits while that has no room."""
        self._made += 1
        staged, blob = f"{go.stamp.token[:24]}.{self._made}", blob_of(data)
        while True:
            answer = yield Ask(op="room", args=Room(size_bytes=len(data)))
            if not answer.code:
                answer = yield Stage(name=staged, data=data)
            if not answer.code:
                answer = yield Ask(op="publish", args=Publish(staged=staged, blob=blob))
            if not answer.code:
                if self._entropy.pick(4) == 0:
                    yield Pause(seconds=self._entropy.uniform(0.0, PIN_SECONDS / 2))
                return Published(blob=blob, at=answer.at)
            if answer.code not in NO_ROOM:
                self._witness.violated(f"{go.stamp.agent_id} could not publish a file: {answer.code}")
                raise Die(code=9)
            yield Pause(seconds=self._entropy.uniform(0.2, 2.0))

    def told(self, go: Go, published: Published, answer: Answer, what: str) -> bool:
        """Whether the host took what refers to a published blob; it must, as long as it promised to keep that."""
        if answer.code:
            self._witness.refused_bytes(f"{what} of {go.stamp.agent_id}: {answer.code}", published.at, answer.at)
        return not answer.code

    def new_artifact(self, go: Go, blob: BlobRef) -> NewArtifact:
        self._made += 1
        number = hashlib.sha256(f"{go.stamp.token} {self._made}".encode()).hexdigest()[:32]
        return NewArtifact(artifact_id=f"art-{number}", name="result.db", blob=blob, created_at=1.0)

    # Registering.

    def register(self, go: Go, name: str, mode: str) -> Generator[Wish, Answer, tuple[RegisteredFile, Published]]:
        """Write a file of the paglet's own and publish it; what its host is to be told of it."""
        data = self.bytes_of(go)
        path = f"/users/{go.stamp.token[:24]}.{self._made}"
        written = yield WriteFile(path=path, data=data)
        published = yield from self.publish(go, data)
        blob = published.blob
        registered = RegisteredFile(
            file=FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes, mode=mode),
            source_path=path,
            source_mtime_ns=written.value.mtime_ns,
            source_inode=written.value.inode,
        )
        self._witness.registers(go, registered)
        if self._entropy.pick(5) == 0:
            # What is written to it later does not travel, and must not be lost.
            self._witness.changes_source(path)
            yield WriteFile(path=path, data=data + b"more")
        return registered, published

    def register_now(self, go: Go, name: str, mode: str) -> Generator[Wish, Answer, str | None]:
        """`register_file` of a job's attempt; gives the hash that is committed, None where it was refused."""
        registered, published = yield from self.register(go, name, mode)
        answer = yield Ask(op="commit", args=Commit(changes=Changes(files=(registered,))))
        return registered.file.sha256 if self.told(go, published, answer, "a file") else None

    def carry(self, go: Go) -> Generator[Wish, Answer, None]:
        """A hook of a courier: it registers another file, and goes to the next of its hosts."""
        hops = go.state["hops"]
        if not hops:
            yield from self.done(EntryDone())
            return
        registered, published = yield from self.register(go, LOAD, ("move", "move", "copy")[self._entropy.pick(3)])
        state = {**go.state, "hops": hops[1:], "files": {**go.state["files"], LOAD: registered.file.sha256}}
        end = EntryDone(
            changes=Changes(has_state=True, state=state, files=(registered,)),
            intent=Intent(move=from_json(HostRef, hops[0])),
        )
        answer = yield Ask(op="done", args=end)
        if not self.told(go, published, answer, "a file"):
            raise Die(code=9)

    def done(self, end: EntryDone) -> Generator[Wish, Answer, None]:
        answer = yield Ask(op="done", args=end)
        if answer.code:
            raise Die(code=9)

    # Artifacts.

    def attach(self, go: Go, target: ProxyRef) -> Generator[Wish, Answer, tuple[ArtifactRef, Published]]:
        """A file that is to belong to `target`."""
        published = yield from self.publish(go, self.bytes_of(go))
        new = self.new_artifact(go, published.blob)
        return artifact_for(target, new.artifact_id, published.blob), published

    def look_at(self, deliver: Deliver) -> Generator[Wish, Answer, None]:
        """The artifacts of a message are the addressee's, with the right bytes."""
        for each in deliver.message.artifacts:
            yield from self.look(each.artifact_id, each.sha256)

    def look(self, artifact_id: str, sha256: str) -> Generator[Wish, Answer, bool]:
        """Fetch an artifact; False where it is not found, which only one may be that was to be deleted."""
        answer = yield Ask(op="artifact_fetch", args=FetchArtifact(artifact_id=artifact_id))
        if answer.code:
            if sha256 and artifact_id not in self._witness.deleted:
                self._witness.violated(f"the artifact {artifact_id} came with a message and is not here: {answer.code}")
            return False
        data = (yield ReadBlob(path=answer.value["path"])).value
        if data is None or blob_of(data).sha256 != (sha256 or answer.value["artifact"]["sha256"]):
            self._witness.violated(f"the artifact {artifact_id} was fetched and {'gone' if data is None else 'wrong'}")
        return True

    def throw_away(self, deliver: Deliver) -> Generator[Wish, Answer, None]:
        """Some addressees delete what came, when they are done with it."""
        for each in deliver.message.artifacts:
            if self._entropy.pick(2):
                self._witness.deleted[each.artifact_id] = None
                yield Ask(op="artifact_delete", args=DeleteArtifact(artifact_id=each.artifact_id))


def artifact_for(target: ProxyRef, artifact_id: str, blob: BlobRef) -> ArtifactRef:
    return ArtifactRef(
        artifact_id=artifact_id,
        name="a.db",
        size_bytes=blob.size_bytes,
        sha256=blob.sha256,
        host_name=target.host.name,
        owner=target.agent_id,
        created_at=1.0,
    )


def result_of(go: Go, new: NewArtifact) -> dict[str, Any]:
    """The result of a job that reports a file."""
    return {
        "key": go.state["key"],
        "attempt": go.stamp.attempt,
        "artifact": {"artifact_id": new.artifact_id, "blob": to_json(new.blob)},
    }

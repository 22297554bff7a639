"""File operations of simulated processes: publish, register, and read files that came with a message."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any

from paglets.core.clock import Entropy
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef
from paglets.worker.protocol import (
    ArtifactAdd,
    ArtifactDelete,
    ArtifactFetch,
    Changes,
    Commit,
    Deliver,
    EntryDone,
    Go,
    Intent,
    NewArtifact,
    Publish,
    RegisteredFile,
    Report,
    ReserveSpace,
)
from tests.simulator.content import PIECE_BYTES, PIN_SECONDS, blob_of, content, some_size
from tests.simulator.seen import Seen
from tests.simulator.wishes import Answer, Ask, Die, Pause, ReadBlob, Stage, TakeAway, Wish, WriteFile
from tests.simulator.witness import Given, Witness

COURIER_CLASS = "simulated:Courier"
LOAD = "load"
"""The name of the file that a courier carries. Its content differs on every host."""

NO_ROOM = ("no_room", "store_full")


class FileScripts:
    """File operations of processes. `made` counts the files, so that all contents differ."""

    def __init__(self, entropy: Entropy, witness: Witness) -> None:
        self._entropy = entropy
        self._witness = witness
        self._made = 0

    def bytes_of(self, go: Go) -> bytes:
        """Return new bytes on each call."""
        self._made += 1
        return content(f"{go.stamp.token} {self._made}", some_size(self._entropy, PIECE_BYTES))

    # Publishing.

    def publish(self, go: Go, data: bytes) -> Generator[Wish, Answer, BlobRef]:
        """Make the bytes a blob of this host. Wait while the host has no room."""
        self._made += 1
        staged, blob = f"{go.stamp.token[:24]}.{self._made}", blob_of(data)
        while True:
            answer = yield Ask(op="reserve_space", args=ReserveSpace(staged=staged, size_bytes=len(data)))
            if not answer.code:
                answer = yield Stage(name=staged, data=data)
            if not answer.code:
                answer = yield Ask(op="publish", args=Publish(staged=staged, blob=blob))
            if not answer.code:
                if self._entropy.pick(4) == 0:
                    yield Pause(seconds=self._entropy.uniform(0.0, PIN_SECONDS / 2))
                return blob
            if answer.code not in NO_ROOM:
                self._witness.violated(f"{go.stamp.agent_id} could not publish a file: {answer.code}")
                raise Die(code=9)
            self._witness.saw(Seen.FULL)
            yield Pause(seconds=self._entropy.uniform(0.2, 2.0))

    def told(self, go: Go, answer: Answer, what: str) -> None:
        """Record a violation if the host refused a request that refers to a blob published by this process."""
        if answer.code:
            self._witness.violated(f"{what} of {go.stamp.agent_id} was refused, its bytes published: {answer.code}")
            raise Die(code=9)

    def new_artifact(self, go: Go, blob: BlobRef) -> NewArtifact:
        self._made += 1
        number = hashlib.sha256(f"{go.stamp.token} {self._made}".encode()).hexdigest()[:32]
        return NewArtifact(artifact_id=f"art-{number}", name="result.db", blob=blob, created_at=1.0)

    # Registering.

    def register(self, go: Go, name: str, mode: str) -> Generator[Wish, Answer, RegisteredFile]:
        """Write a file, publish it and return its registration for the host."""
        data = self.bytes_of(go)
        path = self._path(go)
        written = yield WriteFile(path=path, data=data)
        blob = yield from self.publish(go, data)
        registered = RegisteredFile(
            file=FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes, mode=mode),
            source_path=path,
            source_mtime_ns=written.value.mtime_ns,
            source_inode=written.value.inode,
        )
        self._witness.registers(go, registered)
        if self._entropy.pick(5) == 0:
            # Later writes do not travel, and must not be lost.
            self._witness.changes_source(path)
            yield WriteFile(path=path, data=data + b"more")
        return registered

    def register_now(self, go: Go, name: str, mode: str) -> Generator[Wish, Answer, str]:
        """Commit a registered file during a job's attempt, like `register_file`. Return its hash."""
        registered = yield from self.register(go, name, mode)
        answer = yield Ask(op="commit", args=Commit(changes=Changes(files=(registered,))))
        self.told(go, answer, "a file")
        return registered.file.sha256

    def some_file(self, go: Go) -> Generator[Wish, Answer, tuple[FileRef, ...]]:
        """Return a file for a new paglet, or none in one of three cases."""
        if self._entropy.pick(3) == 0:
            return ()
        blob = yield from self.publish(go, self.bytes_of(go))
        return (FileRef(name="given", sha256=blob.sha256, size_bytes=blob.size_bytes),)

    def _path(self, go: Go) -> str:
        """Return the path of the process's newest file."""
        return f"/users/{go.stamp.token[:24]}.{self._made}"

    def carry(self, go: Go) -> Generator[Wish, Answer, None]:
        """Run a hook of a courier: check its artifacts, register a new file and go to the next host."""
        hops = go.state["hops"]
        artifacts = yield from self.tend(go)
        if not hops:
            yield from self.done(EntryDone(changes=Changes(has_state=True, state={**go.state, "artifacts": artifacts})))
            return
        registered = yield from self.register(go, LOAD, ("move", "move", "copy")[self._entropy.pick(3)])
        files = {**go.state["files"], LOAD: registered.file.sha256}
        state = {**go.state, "hops": hops[1:], "files": files, "artifacts": artifacts}
        end = EntryDone(
            changes=Changes(has_state=True, state=state, files=(registered,)),
            intent=Intent(move=from_json(HostRef, hops[0])),
        )
        answer = yield Ask(op="done", args=end)
        self.told(go, answer, "a file")

    def done(self, end: EntryDone) -> Generator[Wish, Answer, None]:
        answer = yield Ask(op="done", args=end)
        if answer.code:
            raise Die(code=9)

    # Artifacts.

    def report(self, go: Go, move: bool) -> Generator[Wish, Answer, Answer]:
        """Report an artifact like `report_compute_artifact`, and return the host's answer.

        A file that is to be moved is removed only if the report was accepted.
        """
        data = self.bytes_of(go)
        path = self._path(go)
        yield WriteFile(path=path, data=data)
        blob = yield from self.publish(go, data)
        new = self.new_artifact(go, blob)
        answer = yield Ask(op="report", args=Report(success=True, result=result_of(go, new), artifact=new))
        self.told(go, answer, "a report")
        if answer.value["accepted"]:
            self._witness.saw(Seen.RESULT)
            if move:
                yield from self._give(go, path, new)
        return answer

    def _give(self, go: Go, path: str, new: NewArtifact) -> Generator[Wish, Answer, None]:
        assert go.collector is not None
        self._witness.saw(Seen.RESULT_MOVED)
        self._witness.given[path] = Given(
            artifact_id=new.artifact_id,
            collector=go.collector.agent_id,
            job_key=go.state["key"],
            generation=go.stamp.generation,
            host=go.host.name,
        )
        yield TakeAway(path=path)

    def upload(self, go: Go) -> Generator[Wish, Answer, tuple[str, str]]:
        """Add an artifact that belongs to the paglet. Return its id and hash."""
        blob = yield from self.publish(go, self.bytes_of(go))
        new = self.new_artifact(go, blob)
        answer = yield Ask(op="artifact_add", args=ArtifactAdd(artifact=new))
        self.told(go, answer, "an artifact")
        self._witness.saw(Seen.UPLOADED)
        return new.artifact_id, new.blob.sha256

    def tend(self, go: Go) -> Generator[Wish, Answer, dict[str, str]]:
        """Check a courier's artifacts, delete some and add one. Return the artifacts that remain."""
        artifacts = dict(go.state.get("artifacts", {}))
        for artifact_id, sha256 in list(artifacts.items()):
            yield from self.look(go, artifact_id, sha256)
            if self._entropy.pick(3) == 0:
                del artifacts[artifact_id]
                yield from self.delete(artifact_id)
        for artifact_id in go.state.get("fetches", ()):
            yield from self.look(go, artifact_id, "")
        artifact_id, sha256 = yield from self.upload(go)
        return {**artifacts, artifact_id: sha256}

    def delete(self, artifact_id: str) -> Generator[Wish, Answer, None]:
        self._witness.deleted[artifact_id] = None
        answer = yield Ask(op="artifact_delete", args=ArtifactDelete(artifact_id=artifact_id))
        if not answer.code:
            self._witness.saw(Seen.DELETED)

    def attach(self, go: Go, target: ProxyRef) -> Generator[Wish, Answer, ArtifactRef]:
        """Publish a file and return it as an artifact of `target`."""
        blob = yield from self.publish(go, self.bytes_of(go))
        return artifact_for(target, self.new_artifact(go, blob).artifact_id, blob)

    def look_at(self, go: Go, deliver: Deliver) -> Generator[Wish, Answer, None]:
        """Check that the artifacts of a message belong to the addressee and have the right bytes."""
        for each in deliver.message.artifacts:
            yield from self.look(go, each.artifact_id, each.sha256)

    def look(self, go: Go, artifact_id: str, sha256: str) -> Generator[Wish, Answer, bool]:
        """Fetch an artifact and check its bytes. Return False if it is not found.

        A missing artifact is a violation, unless somebody asked to delete it.
        """
        answer = yield Ask(op="artifact_fetch", args=ArtifactFetch(artifact_id=artifact_id))
        if answer.code:
            if sha256 and artifact_id not in self._witness.deleted:
                self._witness.violated(f"the artifact {artifact_id} is not with its owner: {answer.code}")
            return False
        if answer.value["artifact"]["host_name"] != go.host.name:
            self._witness.saw(Seen.FETCHED)
        data = (yield ReadBlob(path=answer.value["path"])).value
        if data is None or blob_of(data).sha256 != (sha256 or answer.value["artifact"]["sha256"]):
            self._witness.violated(f"the artifact {artifact_id} was fetched and {'gone' if data is None else 'wrong'}")
        return True

    def throw_away(self, deliver: Deliver) -> Generator[Wish, Answer, None]:
        """Delete some artifacts of a handled message."""
        for each in deliver.message.artifacts:
            if self._entropy.pick(2):
                yield from self.delete(each.artifact_id)


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
    """Return the result of a job that reports a file."""
    return {
        "key": go.state["key"],
        "attempt": go.stamp.attempt,
        "artifact": {"artifact_id": new.artifact_id, "blob": to_json(new.blob)},
    }

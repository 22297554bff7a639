"""Artifacts of the mesh, for a paglet here: looked for, and their bytes brought to this host piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from paglets.api.blobs import ArtifactView, AskBlobs, BlobState
from paglets.api.paglets import Done
from paglets.core.errors import FileChanged, Moving, PagletsError, Unknown
from paglets.core.refs import ArtifactRef, HostRef
from paglets.host.blobs import BlobKeeper
from paglets.host.shell import Shell
from paglets.mesh.gossip import Gossip
from paglets.remote.exchange import Request, Response, dump_json, parsed
from paglets.store import artifacts
from paglets.store.db import Tx

LOOK_SECONDS = 5.0
PIECE_SECONDS = 60.0
MOST_FAILURES = 20
BAD_TRIES = 3
"""So often the bytes may be wrong ones; after the first time the host that has them is asked to look at them."""

PAUSE_SECONDS = 1.0

Fetched = Callable[[ArtifactRef | PagletsError], None]
Found = Callable[[ArtifactView | PagletsError], None]


@dataclass(slots=True, kw_only=True)
class _Fetch:
    view: ArtifactView
    done: Fetched
    offset: int = 0
    failures: int = 0
    bad_tries: int = 0
    due: float = 0.0


class Fetching:
    """Part `fetching`: goes on with fetches that wait after a failure. Belongs to the runner."""

    name = "fetching"

    def __init__(self, shell: Shell, gossip: Gossip, keeper: BlobKeeper) -> None:
        self._shell = shell
        self._gossip = gossip
        self._keeper = keeper
        self._paused: list[_Fetch] = []

    def tick(self, now: float) -> float | None:
        due = [fetch for fetch in self._paused if fetch.due <= now]
        self._paused = [fetch for fetch in self._paused if fetch.due > now]
        for fetch in due:
            self._begin(fetch)
        return min((fetch.due for fetch in self._paused), default=None)

    # Looking.

    def find(self, artifact_id: str, found: Found) -> None:
        """Where an artifact is: here, or on one of the online hosts; Unknown where on none."""
        own = self._shell.own
        ref = self._shell.store.read(lambda tx: artifacts.find(tx, artifact_id, own.name))
        if ref is not None:
            found(ArtifactView(artifact=ref, host=own))
            return
        unknown = Unknown(f"no host of the mesh that is online has an artifact {artifact_id}")
        hosts = self._gossip.online()
        asking = _Asking(left=len(hosts), error=unknown, found=found)
        request = Request(method="GET", target=f"/v1/artifacts/{artifact_id}?here=1")
        for member in hosts:
            self._shell.transport.send(member.ref, request, asking.answered, timeout_seconds=LOOK_SECONDS)
        if not hosts:
            found(unknown)

    # Bytes.

    def fetch(self, artifact_id: str, done: Fetched) -> None:
        """Give the artifact to `done` once its bytes are here, for a while at least."""

        def found(result: ArtifactView | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            else:
                self._begin(_Fetch(view=result, done=done))

        self.find(artifact_id, found)

    def _begin(self, fetch: _Fetch) -> None:
        sha256 = fetch.view.artifact.sha256
        self._keeper.aside(lambda: self._keeper.state(sha256), lambda state: self._go_on(fetch, state))

    def _go_on(self, fetch: _Fetch, state: BlobState | BaseException) -> None:
        if isinstance(state, BaseException):
            fetch.done(state if isinstance(state, PagletsError) else PagletsError(f"the host failed: {state!r}"))
        elif state.complete:
            fetch.done(fetch.view.artifact)
        elif fetch.view.host.store_id == self._shell.own.store_id:
            own = fetch.view.host.name
            fetch.done(FileChanged(f"the bytes of {state.sha256} on {own} are damaged: its disk may be failing"))
        else:
            fetch.offset = state.offset
            self._piece(fetch)

    def _piece(self, fetch: _Fetch) -> None:
        blob, offset = fetch.view.artifact.blob, fetch.offset
        length = min(self._shell.settings.piece_bytes, blob.size_bytes - offset)

        def keep(piece: bytes) -> None:
            if len(piece) != length:
                raise FileChanged(f"{fetch.view.host.name} gave {len(piece)} of {length} bytes")
            self._keeper.take(blob, offset, piece)

        request = Request(
            method="GET",
            target=f"/v1/blobs/{blob.sha256}?{urlencode({'offset': offset, 'length': length})}",
            keep=keep,
            by_name=True,
        )

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                fetch.failures = 0
                self._begin(fetch)
            else:
                self._failed(fetch, _error(result))

        host = self._gossip.address(fetch.view.host)
        self._shell.transport.send(host, request, answered, timeout_seconds=PIECE_SECONDS)

    def _failed(self, fetch: _Fetch, error: PagletsError) -> None:
        fetch.failures += 1
        fetch.bad_tries += isinstance(error, FileChanged)
        if fetch.failures >= MOST_FAILURES or fetch.bad_tries >= BAD_TRIES:
            fetch.done(error)
            return
        if isinstance(error, FileChanged):
            self._doubt(fetch)
        fetch.due = self._shell.clock.monotonic() + PAUSE_SECONDS
        # It may have moved with its owner, or have been deleted.
        self.find(fetch.view.artifact.artifact_id, lambda found: self._found_again(fetch, found))

    def _doubt(self, fetch: _Fetch) -> None:
        """Have the host look at the bytes that it gives: then it says itself that they are damaged."""
        body = dump_json(AskBlobs(sha256s=(fetch.view.artifact.sha256,), check=True))
        request = Request(method="POST", target="/v1/blobs/state", body=body, repeatable=True)
        host = self._gossip.address(fetch.view.host)
        self._shell.transport.send(host, request, lambda result: None, timeout_seconds=PIECE_SECONDS)

    def _found_again(self, fetch: _Fetch, found: ArtifactView | PagletsError) -> None:
        if isinstance(found, ArtifactView):
            fetch.view = found
        self._paused.append(fetch)
        self._shell.runner.wake(self.name)

    # Deleting.

    def delete(self, artifact_id: str, done: Callable[[Done | PagletsError | BaseException], None]) -> None:
        """Delete it where it is."""

        def found(result: ArtifactView | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            elif result.host.store_id == self._shell.own.store_id:
                self._shell.runner.change(lambda tx: delete_here(tx, artifact_id), done)
            else:
                self._delete_at(result.host, artifact_id, done)

        self.find(artifact_id, found)

    def _delete_at(self, host: HostRef, artifact_id: str, done: Callable[[Done | PagletsError], None]) -> None:
        def answered(result: Response | PagletsError) -> None:
            try:
                done(parsed(result, Done))
            except Unknown:
                # It was there a moment ago: deleted by this request, perhaps, whose first reply was lost.
                done(Done())
            except PagletsError as error:
                done(error)

        request = Request(method="DELETE", target=f"/v1/artifacts/{artifact_id}?here=1", repeatable=True)
        self._shell.transport.send(self._gossip.address(host), request, answered, timeout_seconds=LOOK_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Asking:
    """A question to several hosts; told the answers on the runner."""

    left: int
    error: PagletsError
    found: Found
    ended: bool = False

    def answered(self, result: Response | PagletsError) -> None:
        self.left -= 1
        if self.ended:
            return
        try:
            view: ArtifactView | PagletsError = parsed(result, ArtifactView)
        except PagletsError:  # it has none, or says nothing that can be read
            view = self.error
        if isinstance(view, ArtifactView) or not self.left:
            self.ended = True
            self.found(view)


def delete_here(tx: Tx, artifact_id: str) -> Done:
    """Raises Unknown, and Moving where its owner is leaving with it."""
    if not artifacts.delete(tx, artifact_id):
        if artifacts.is_leaving(tx, artifact_id):
            raise Moving(f"artifact {artifact_id} is on its way to another host with its owner; ask again in a moment")
        raise Unknown(f"there is no artifact {artifact_id} here")
    tx.wake("disposal")
    return Done()


def _error(result: Response | PagletsError) -> PagletsError:
    if isinstance(result, PagletsError):
        return result
    try:
        result.json()
    except PagletsError as error:
        return error
    return PagletsError("the bytes of an artifact could not be had")

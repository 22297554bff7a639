"""Find, check and create the mesh key. A holder of the key may do everything in the mesh, others nothing.

The key is one line of 43 base64url characters (32 random bytes). The key is never sent over the network, only as
`Authorization: Bearer` between processes of one machine.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paglets.core.clock import Entropy
from paglets.core.errors import NotAllowed, StartFailed
from paglets.core.regular_files import NotRegularFile, open_regular
from paglets.core.text import home_path
from paglets.core.unpacked import DEFAULT_HOME, HOME_VARIABLE
from paglets.wire.local_hosts import RunningHost, running_hosts

KEY_VARIABLE = "PAGLETS_API_KEY"
KEY_FILE_NAME = "mesh.key"
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_KEY_BYTES = 32
_MOST_FILE_BYTES = 1024
MOST_NAMED = 5
SAME_FOR_COMMANDS = f"set {KEY_VARIABLE} to the key of the host, if the host got it by --key-file or that variable"
_COPY_AGAIN = "copy the key again from a machine of the mesh"
_ANOTHER = f"and {_COPY_AGAIN}; in a new mesh the first host creates it"
_NOT_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeshKey:
    """The mesh key and a description of where it was found. Neither `repr` nor an error shows the key."""

    text: str = field(repr=False)
    source: str

    @property
    def secret(self) -> bytes:
        """Return the key as bytes, for signatures."""
        return self.text.encode("ascii")

    def matches(self, text: str) -> bool:
        """Return True if `text` is this key. The comparison takes constant time."""
        return hmac.compare_digest(self.secret, text.encode("utf-8", "surrogatepass"))


def paglets_home(environ: Mapping[str, str]) -> Path:
    """Return the directory of paglets for this user: PAGLETS_HOME, else `~/.paglets`. The path is absolute.

    The directory need not exist. Raises StartFailed.
    """
    named = environ.get(HOME_VARIABLE) or DEFAULT_HOME
    try:
        # Make the path absolute, because the process of each job has another working directory.
        return Path(named).expanduser().absolute()
    except RuntimeError as error:
        text = f"the home directory of this user is not known ({error})"
        raise StartFailed(text, hint=[f"set {HOME_VARIABLE}"]) from error
    except OSError as error:  # `absolute` needs the working directory, which was removed
        raise StartFailed(
            f"{HOME_VARIABLE} is {named!r}, relative to a working directory that was removed: use an absolute path"
        ) from error


def parse_key(text: str, source: str) -> MeshKey:
    """Return the key in `text`, which is one line with or without a line end.

    Raises StartFailed. The message names `source` and never shows `text`.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    if not _KEY.fullmatch(line):
        raise StartFailed(
            f"{source} has no mesh key: expected one line of 43 characters of A-Z a-z 0-9 _ -, "
            f"got {len(line)} characters",
            hint=[_COPY_AGAIN],
        )
    return MeshKey(text=line, source=source)


def read_key(path: Path) -> MeshKey:
    """Return the key in the file `path`. Raises StartFailed if it is missing, malformed, or readable by others."""
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except FileNotFoundError as error:
        what = f"is {broken_link_text(path)}" if path.is_symlink() else "does not exist"
        raise StartFailed(f"the key file {path} {what}") from error
    except NotRegularFile as error:
        raise StartFailed(f"the key file {path} cannot be used: {error}", hint=[f"move it away, {_ANOTHER}"]) from error
    except OSError as error:
        raise StartFailed(f"the key file {path} cannot be read: {error.strerror}") from error
    try:
        _check_file(path, os.fstat(descriptor))
        data = os.read(descriptor, _MOST_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if not data:
        raise StartFailed(f"the key file {path} is empty", hint=[f"remove it, {_ANOTHER}"])
    return parse_key(data.decode("latin-1"), f"the key file {path}")


def broken_link_text(path: Path) -> str:
    """Return a text that describes a symbolic link to a missing key file, and how to fix the problem."""
    return f"a link to {os.readlink(path)}, which does not exist: put the key there, or remove the link"


def _check_file(path: Path, found: os.stat_result) -> None:
    # On Windows, the mode does not show who may read the file.
    if os.name == "posix" and found.st_mode & _NOT_FOR_OTHERS:
        raise StartFailed(
            f"the key file {path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=[f"run `chmod 600 {path}`, and create a new key if others may have read it"],
        )


def create_key(path: Path, entropy: Entropy) -> MeshKey:
    """Create a key in the file `path`, readable only by this user. If another process has created the file, read it.

    Raises StartFailed. Several hosts may start at once on a new machine, under any umask. So the file appears only when
    it is complete, and is never readable by others.
    """
    text = base64.urlsafe_b64encode(bytes.fromhex(entropy.token(_KEY_BYTES))).decode("ascii").rstrip("=")
    draft = path.with_name(f".{path.name}.{entropy.token(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(draft, text + "\n")
        try:
            _put_in_place(draft, path, text + "\n")
        finally:
            draft.unlink()
    except OSError as error:
        raise StartFailed(f"the key file {path} cannot be written: {error.strerror}") from error
    return read_key(path)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), 0o600)  # the umask may have removed permissions of the owner
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(draft: Path, path: Path, text: str) -> None:
    """Link `draft` to `path`. If two hosts do so at once, the second link fails, and both use the key of the first."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # the file system does not support hard links
            _write_private(path, text)


def find_key(
    environ: Mapping[str, str], *, key_file: Path | None = None, config_key_file: Path | None = None
) -> MeshKey | None:
    """Return the first key of: `key_file` (the flag), PAGLETS_API_KEY, `config_key_file`, mesh.key; or None.

    Raises StartFailed if the first key that is given is missing or malformed, and does not try the next one.
    """
    if key_file is not None:
        return read_key(key_file)
    if environ.get(KEY_VARIABLE):
        return parse_key(environ[KEY_VARIABLE], f"the environment variable {KEY_VARIABLE}")
    if config_key_file is not None:
        return read_key(config_key_file)
    path = default_key_file(environ)
    return read_key(path) if os.path.lexists(path) else None


def default_key_file(environ: Mapping[str, str]) -> Path:
    return paglets_home(environ) / KEY_FILE_NAME


def host_key(
    environ: Mapping[str, str],
    *,
    peers: Sequence[str] = (),
    key_file: Path | None = None,
    config_key_file: Path | None = None,
) -> MeshKey | None:
    """Return the key for a host; None if this machine has no key, so that `first_key` may create one.

    Raises StartFailed if there is no key although the host has peers, or other hosts run on this machine, because a new
    key would differ from theirs. The error says how to copy their key.
    """
    # List hosts before `find_key`. A host writes its run file after its key, so
    # `find_key` finds the key of each listed host.
    running = running_hosts(paglets_home(environ))
    found = find_key(environ, key_file=key_file, config_key_file=config_key_file)
    if found is None and peers:
        first = "in a new mesh start the first host without peers, or run `paglets key new` on one machine"
        raise StartFailed(
            "this machine has no mesh key, and a host with peers needs the key of its peers",
            hint=[_copy_hint(default_key_file(environ)), first],
        )
    if found is None and running:
        same = f"start this host with the --key-file or {KEY_VARIABLE} of {running[0].name}, if that host has one"
        raise StartFailed(_running_without_key(running), hint=lost_key_hints(environ, same))
    return found


def first_key(environ: Mapping[str, str], entropy: Entropy, others: Sequence[str]) -> MeshKey:
    """Create the key for the first host of a mesh. Raises StartFailed if the host was in a mesh with `others`."""
    if others:
        more = f" and {len(others) - MOST_NAMED:,} more" if others[MOST_NAMED:] else ""
        names = ", ".join(others[:MOST_NAMED]) + more
        same = f"start this host with the --key-file or {KEY_VARIABLE} that it had before, if it had one"
        raise StartFailed(
            f"this machine has no mesh key, and this host was in a mesh with {names}",
            hint=lost_key_hints(environ, same),
        )
    return create_key(default_key_file(environ), entropy)


def client_key(
    environ: Mapping[str, str], *, key_file: Path | None = None, config_key_file: Path | None = None
) -> MeshKey:
    """Return the key for a command or script. Raises NotAllowed, with a hint how to copy the key, if there is none."""
    found = find_key(environ, key_file=key_file, config_key_file=config_key_file)
    if found is None and (running := running_hosts(paglets_home(environ))):
        raise NotAllowed(_running_without_key(running), hint=lost_key_hints(environ, SAME_FOR_COMMANDS))
    if found is None:
        made = "paglets host --background starts one; the first host of a mesh creates the key"
        raise NotAllowed(
            "this machine has no mesh key, and no host runs on it",
            hint=[made, _copy_hint(default_key_file(environ))],
        )
    return found


def _running_without_key(running: Sequence[RunningHost]) -> str:
    return f"this machine has no mesh key; the host {running[0].name} runs here with a key that it read earlier"


def lost_key_hints(environ: Mapping[str, str], same: str) -> list[str]:
    """Return advice for a key file that is missing although hosts use the key.

    `same`: the first advice, for users who gave the hosts their key in another way than by this file.
    """
    return [
        same,
        f"otherwise restore {default_key_file(environ)} (mode 600) from a backup, or from another machine of the mesh, "
        "where `paglets key path` shows it",
        "create another key with `paglets key new` only if this one is lost for good, or for a separate mesh: hosts "
        "with different keys cannot join the same mesh",
    ]


def _copy_hint(path: Path) -> str:
    home, slash, rest = home_path(path).partition("~/")
    place = slash + shlex.quote(rest) if slash and not home else shlex.quote(str(path))
    return f"copy the key of the mesh: scp -p FIRST-MACHINE:.paglets/{KEY_FILE_NAME} {place}"

"""Build dist/paglets.pyz, the one file: `python3 build_zipapp.py`.

Building needs Python >= 3.11 with pip, and no installed packages. Contents:

    __main__.py            reports an old Python, else starts the command (a copy of paglets/__main__.py)
    paglets/__init__.py    unpacks the program at its first start and imports it (archive_root/paglets/__init__.py)
    src/paglets/           the program as source
    src/vendor/            tomli_w, for machines without it
    src/native/            psutil for eight platforms, compressed as in the published wheels
    src/archive.json       the version, and the list of psutil's files
    src/__main__.py        starts the command from an unpacked copy of `src`

The same sources give the same bytes on every machine with every Python, so anyone can reproduce the archive. Names are
sorted, times and modes fixed, and nothing is compiled. Entries are stored, not deflated, because the output of deflate
depends on the builder's zlib.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"build_zipapp.py needs Python 3.11 or newer; this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from paglets.core.unpacking import content_of  # noqa: E402

WHEELS = ROOT / "build" / "wheels"
SHEBANG = b"#!/usr/bin/env python3\n"
MOST_BYTES = 3_000_000
"""The maximum size of the archive. People copy this file to each machine, some of them over slow lines."""

DOCUMENTS = frozenset({"paglets/store/schema.sql"})
"""Files for developers that no program reads. They are not in the archive."""

EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
PSUTIL, TOMLI_W = "psutil==7.2.2", "tomli_w==1.2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A file of the package index, pinned by its hash.

    `platform` is the platform's name in paglets, `pip_platform` in pip.
    """

    requirement: str
    name: str
    sha256: str
    platform: str
    pip_platform: str


def _psutil(platform: str, pip_platform: str, tags: str, sha256: str) -> Wheel:
    name = f"psutil-7.2.2-{tags}.whl"
    return Wheel(requirement=PSUTIL, name=name, sha256=sha256, platform=platform, pip_platform=pip_platform)


# If `pip_platform` matches no file of the pinned release, pip silently takes an older release. The hash prevents that.
PSUTIL_WHEELS = (
    _psutil(
        "linux-x86_64-glibc",
        "manylinux2010_x86_64",
        "cp36-abi3-manylinux2010_x86_64.manylinux_2_12_x86_64.manylinux_2_28_x86_64",
        "076a2d2f923fd4821644f5ba89f059523da90dc9014e85f8e45a5774ca5bc6f9",
    ),
    _psutil(
        "linux-aarch64-glibc",
        "manylinux2014_aarch64",
        "cp36-abi3-manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64",
        "b0726cecd84f9474419d67252add4ac0cd9811b04d61123054b9fb6f57df6e9e",
    ),
    _psutil(
        "linux-x86_64-musl",
        "musllinux_1_2_x86_64",
        "cp36-abi3-musllinux_1_2_x86_64",
        "b58fabe35e80b264a4e3bb23e6b96f9e45a3df7fb7eed419ac0e5947c61e47cc",
    ),
    _psutil(
        "linux-aarch64-musl",
        "musllinux_1_2_aarch64",
        "cp36-abi3-musllinux_1_2_aarch64",
        "fd04ef36b4a6d599bbdb225dd1d3f51e00105f6d48a28f006da7f9822f2606d8",
    ),
    _psutil(
        "darwin-x86_64",
        "macosx_10_9_x86_64",
        "cp36-abi3-macosx_10_9_x86_64",
        "ed0cace939114f62738d808fdcecd4c869222507e266e574799e9c0faa17d486",
    ),
    _psutil(
        "darwin-arm64",
        "macosx_11_0_arm64",
        "cp36-abi3-macosx_11_0_arm64",
        "1a7b04c10f32cc88ab39cbf606e117fd74721c831c98a27dc04578deb0c16979",
    ),
    _psutil(
        "win32-amd64",
        "win_amd64",
        "cp37-abi3-win_amd64",
        "eb7e81434c8d223ec4a219b5fc1c47d0417b12be7ea866e24fb5ad6e84b3d988",
    ),
    _psutil(
        "win32-arm64",
        "win_arm64",
        "cp37-abi3-win_arm64",
        "8c233660f575a5a89e6d4cb65d9f938126312bca76d8fe087b947b3a1aaac9ee",
    ),
)
TOMLI_W_WHEEL = Wheel(
    requirement=TOMLI_W,
    name="tomli_w-1.2.0-py3-none-any.whl",
    sha256="188306098d013b691fcadc011abd66727d3c414c571bb01b1a174ba8c983cf90",
    platform="",
    pip_platform="any",
)


class BuildFailed(Exception):
    """An archive that cannot be built. The message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build paglets.pyz.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "paglets.pyz")
    arguments = parser.parse_args()
    try:
        build(arguments.output)
    except BuildFailed as error:
        print(f"build_zipapp.py: {error}", file=sys.stderr)
        return 1
    return 0


def build(output: Path) -> None:
    """Write the archive to `output`, and print a report with the next steps."""
    data = archive_bytes()
    write_executable(output, data)
    print("\n".join(report(output, data)))


def archive_bytes() -> bytes:
    """Return the archive of this checkout. Raises BuildFailed."""
    wheels = {wheel: fetch(wheel) for wheel in (*PSUTIL_WHEELS, TOMLI_W_WHEEL)}
    starter = (ROOT / "paglets" / "__main__.py").read_bytes()
    program = program_files() | psutil_files(wheels) | tomli_w_files(wheels[TOMLI_W_WHEEL]) | {"__main__.py": starter}
    first = (ROOT / "archive_root" / "paglets" / "__init__.py").read_text("utf-8")
    noted = first.replace('CONTENT = ""', f'CONTENT = "{content_of(program)}"')
    if noted == first:
        raise BuildFailed('archive_root/paglets/__init__.py has no line CONTENT = ""')
    data = zipped(
        {f"src/{name}": data for name, data in program.items()}
        | {"__main__.py": starter, "paglets/__init__.py": noted.encode()}
    )
    if len(data) > MOST_BYTES:
        raise BuildFailed(f"the archive has {len(data):,} bytes, more than the limit of {MOST_BYTES:,}")
    return data


def report(output: Path, archive: bytes) -> list[str]:
    """Return the lines that are printed after a build."""
    name = os.path.relpath(output)
    shown = shlex.quote(str(output.absolute()) if name.startswith(os.pardir) else name)
    return [
        f"wrote {shown}: {len(archive) / (1 << 20):.1f} MiB",
        f"sha256 {hashlib.sha256(archive).hexdigest()}",
        f"next: python3 {shown} demo",
        f"next: mkdir -p ~/.local/bin && install -m 755 {shown} ~/.local/bin/paglets",
    ]


# The program


def program_files() -> dict[str, bytes]:
    """Return every file of the package except DOCUMENTS, by its name with slashes."""
    files: dict[str, bytes] = {}
    for path in (ROOT / "paglets").rglob("*"):
        name = path.relative_to(ROOT)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc" and name.as_posix() not in DOCUMENTS:
            files[name.as_posix()] = path.read_bytes()
    return files


def tomli_w_files(wheel: bytes) -> dict[str, bytes]:
    """Return the package tomli_w and its licence."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        wanted = [name for name in archive.namelist() if name.startswith("tomli_w/") or "licenses/" in name]
        return {f"vendor/{name}": archive.read(name) for name in wanted}


UNUSED = ("psutil/_psaix.py", "psutil/_psbsd.py", "psutil/_pssunos.py")
"""The modules of psutil for systems without an extension module in the archive. Only those systems import them."""


def psutil_files(wheels: dict[Wheel, bytes]) -> dict[str, bytes]:
    """Return psutil: its modules and licence once, its extension module for each platform, and the list of both.

    The compressed bytes are copied from the wheels, because new ones would depend on the builder's zlib.
    """
    files: dict[str, bytes] = {}
    modules: list[str] = []
    platforms: dict[str, dict[str, str]] = {}
    for wheel in PSUTIL_WHEELS:
        members = compressed_members(wheels[wheel])
        (extension,) = (name for name in members if name.endswith((".so", ".pyd")))
        platforms[wheel.platform] = {"sha256": wheel.sha256, "extension": extension}
        files[f"native/{wheel.platform}/{extension}.deflate"] = members[extension]
        if not modules:  # The modules for Windows differ from these only in their line ends.
            modules = sorted(name for name in members if name.endswith((".py", "/LICENSE")) and name not in UNUSED)
            files |= {f"native/all/{name}.deflate": members[name] for name in modules}
    content = {"version": program_version(), "psutil": {"all": modules, "platforms": platforms}}
    return files | {"archive.json": json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"}


def compressed_members(wheel: bytes) -> dict[str, bytes]:
    """Return the bytes of each deflated file of a zip file, as they are stored."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for member in archive.infolist():
            if member.compress_type == zipfile.ZIP_DEFLATED:
                # The data follows a header of 30 bytes, a name and an extra field. The header ends with both lengths.
                lengths = struct.unpack_from("<HH", wheel, member.header_offset + 26)
                start = member.header_offset + 30 + sum(lengths)
                members[member.filename] = wheel[start : start + member.compress_size]
    return members


def program_version() -> str:
    """Return PROGRAM_VERSION as paglets/program.py assigns it."""
    for node in ast.parse((ROOT / "paglets" / "program.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROGRAM_VERSION":
            return str(ast.literal_eval(node.value))
    raise BuildFailed("paglets/program.py does not assign PROGRAM_VERSION")


# The wheels in the archive


def fetch(wheel: Wheel) -> bytes:
    """Return the verified bytes of a wheel, from build/wheels or from the package index of pip."""
    kept = WHEELS / wheel.name
    if not kept.is_file() or hashlib.sha256(kept.read_bytes()).hexdigest() != wheel.sha256:
        print(f"fetching {wheel.name}", file=sys.stderr)
        WHEELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WHEELS) as folder:
            download(wheel, Path(folder))
            Path(folder, wheel.name).replace(kept)
    data = kept.read_bytes()
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise BuildFailed(f"{kept} has another SHA-256 than the pinned {wheel.sha256}")
    return data


def download(wheel: Wheel, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet", "--platform", wheel.pip_platform]
    options += ["--implementation", "cp", "--python-version", "3.11", "--dest", str(folder), "-r", str(requirements)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True, check=False
    )
    if done.returncode or not (folder / wheel.name).is_file():
        raise BuildFailed(
            f"cannot fetch {wheel.name}:\n{done.stderr or done.stdout}"
            f"hint: fix the error of pip, or put this file into {WHEELS} by hand (sha256 {wheel.sha256})"
        )


# The archive


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = 3  # Unix, whatever system builds it
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, entries[name])
    return buffer.getvalue()


def write_executable(output: Path, data: bytes) -> None:
    """Replace `output` in one step. On POSIX, a program that runs from the old file can still read it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}-")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(temporary).chmod(0o755)
    Path(temporary).replace(output)


if __name__ == "__main__":
    sys.exit(main())

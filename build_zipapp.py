"""Builds dist/paglets.pyz, the one file: `python3 build_zipapp.py`.

It needs a Python >= 3.11 with pip, and nothing installed. What goes in:

    __main__.py            says so under an old Python, else starts the command (a copy of paglets/__main__.py)
    paglets/__init__.py    puts the right tree in its place (archive_root/paglets/__init__.py)
    cp311/ cp312/ cp313/   the program as bytecode, and its data files: one tree for each interpreter found
    src/                   the program as source, for every other Python
    wheels/                psutil for eight platforms, as published
    archive.json           the version, the trees, and which wheel is for which platform

The same sources and interpreters give the same bytes, wherever and by whom it is built: names are sorted, times and
modes fixed, bytecode is hash-based with relative file names. Entries are stored, not deflated: deflate's output depends
on the zlib of the builder, so only a stored archive can be rebuilt by anyone; start-up is the same, the wheels inside
are compressed already, and a file of a few megabytes is copied once to each machine.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(f"build_zipapp.py needs Python 3.11 or newer; this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent
WHEELS = ROOT / "build" / "wheels"
SHEBANG = b"#!/usr/bin/env python3\n"
COMPILED_FOR = ((3, 11), (3, 12), (3, 13))
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
PSUTIL, TOMLI_W = "psutil==7.2.2", "tomli_w==1.2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A file of the package index, pinned by its hash. `platform` is paglets' word for it, `pip_platform` is pip's."""

    requirement: str
    name: str
    sha256: str
    platform: str
    pip_platform: str


def _psutil(platform: str, pip_platform: str, tags: str, sha256: str) -> Wheel:
    name = f"psutil-7.2.2-{tags}.whl"
    return Wheel(requirement=PSUTIL, name=name, sha256=sha256, platform=platform, pip_platform=pip_platform)


# Where the platform's name fits no file of the pinned release, pip takes an older one without a word; the hash forbids
# that.
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

COMPILE = """
import py_compile, sys
for line in sys.stdin.read().splitlines():
    py_compile.compile(sys.argv[1] + "/" + line, cfile=sys.argv[2] + "/" + line + "c", dfile=line, doraise=True,
                       optimize=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""
"""Unchecked: a timestamp would be compared in local time, and a checked hash would have the source read at each start.
The relative name is what tracebacks show; it keeps the builder's folder out of the bytes."""


class BuildFailed(Exception):
    """What is missing, and what to do about it."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds paglets.pyz.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "paglets.pyz")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PATH", help="compile for this interpreter too (repeatable)"
    )
    arguments = parser.parse_args()
    try:
        build(arguments.output, arguments.python)
    except BuildFailed as error:
        print(f"build_zipapp.py: {error}", file=sys.stderr)
        return 1
    return 0


def build(output: Path, pythons: list[str]) -> None:
    """Write the archive to `output`, and say on stdout what it is and what to do next."""
    # First, for this can fail, and to compile takes a while.
    wheels = {f"wheels/{wheel.name}": fetch(wheel) for wheel in PSUTIL_WHEELS}
    interpreters = find_interpreters(pythons)
    sources = program_files()
    entries = wheels | tree_entries("src", sources)
    for tree, (python, _) in interpreters.items():
        entries |= tree_entries(tree, compiled(python, sources))
    entries["__main__.py"] = (ROOT / "paglets" / "__main__.py").read_bytes()
    entries["paglets/__init__.py"] = (ROOT / "archive_root" / "paglets" / "__init__.py").read_bytes()
    entries["archive.json"] = manifest({tree: version for tree, (_, version) in interpreters.items()})
    archive = zipped(entries)
    write_executable(output, archive)
    print("\n".join(report(output, archive, interpreters)))


def report(output: Path, archive: bytes, interpreters: dict[str, tuple[str, str]]) -> list[str]:
    """Return the lines that are printed after a build."""
    name = os.path.relpath(output)
    shown = shlex.quote(str(output.absolute()) if name.startswith(os.pardir) else name)
    compiled_for = ", ".join(version for _, version in interpreters.values())
    lines = [
        f"wrote {shown}: {len(archive) / (1 << 20):.1f} MiB, bytecode for Python {compiled_for or 'none'}",
        f"sha256 {hashlib.sha256(archive).hexdigest()}",
        f"next: python3 {shown} demo",
        f"next: mkdir -p ~/.local/bin && install -m 755 {shown} ~/.local/bin/paglets",
    ]
    missing = [f"{major}.{minor}" for major, minor in COMPILED_FOR if tree_name((major, minor)) not in interpreters]
    if missing:
        lines.append(f"note: no Python {', '.join(missing)} was found; there a start takes 0.4 s more (see --python)")
    return lines


# Interpreters


def tree_name(version: tuple[int, int]) -> str:
    return f"cp{version[0]}{version[1]}"


def find_interpreters(named: list[str]) -> dict[str, tuple[str, str]]:
    """For each tree to compile, the interpreter and its full version; what is named comes first, then this one."""
    on_path = [shutil.which(f"python{major}.{minor}") for major, minor in COMPILED_FOR]
    managed = sorted(Path.home().glob(".pyenv/versions/*/bin/python"))
    found: dict[str, tuple[str, str]] = {}
    for python in [*named, sys.executable, *filter(None, on_path), *map(str, managed)]:
        seen = probe(python)
        if seen is None and python in named:
            raise BuildFailed(f"--python {python}: cannot be run, or is no CPython")
        if seen and (seen[0] in map(tree_name, COMPILED_FOR) or python in named):
            found.setdefault(seen[0], (python, seen[1]))
    return dict(sorted(found.items()))


def probe(python: str) -> tuple[str, str] | None:
    """The tree that this interpreter compiles, and its version; None where it is no working CPython."""
    code = "import platform as p; print(p.python_implementation(), *p.python_version_tuple()[:2], p.python_version())"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    if done.returncode or len(words) != 4 or words[0] != "CPython":
        return None
    return tree_name((int(words[1]), int(words[2]))), words[3]


# The program


def program_files() -> dict[str, bytes]:
    """Every file of the package and of tomli_w, by its name with slashes."""
    files: dict[str, bytes] = {}
    for path in (ROOT / "paglets").rglob("*"):
        name = path.relative_to(ROOT)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc" and not path.name.endswith("~"):
            files[name.as_posix()] = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(fetch(TOMLI_W_WHEEL))) as wheel:
        for member in wheel.namelist():
            if member.startswith("tomli_w/") or member.endswith("/LICENSE"):
                files[member] = wheel.read(member)
    return files


def compiled(python: str, sources: dict[str, bytes]) -> dict[str, bytes]:
    """The same files, with bytecode of `python` in the place of the source."""
    modules = sorted(name for name in sources if name.endswith(".py"))
    with tempfile.TemporaryDirectory() as folder:
        for name in modules:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sources[name])
        # The order of frozen sets is in the bytes, so the hash seed is fixed; -I would ignore it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [python, "-s", "-S", "-c", COMPILE, folder, folder],
            input="\n".join(modules),
            env=environment | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildFailed(f"{python} cannot compile the program:\n{done.stderr}")
        bytecode = {f"{name}c": Path(folder, f"{name}c").read_bytes() for name in modules}
    return bytecode | {name: data for name, data in sources.items() if not name.endswith(".py")}


def tree_entries(tree: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{tree}/{name}": data for name, data in files.items()}


def program_version() -> str:
    """PROGRAM_VERSION as paglets/program.py writes it down."""
    for node in ast.parse((ROOT / "paglets" / "program.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROGRAM_VERSION":
            return str(ast.literal_eval(node.value))
    raise BuildFailed("paglets/program.py does not say PROGRAM_VERSION = ...")


def manifest(trees: dict[str, str]) -> bytes:
    psutil = {wheel.platform: {"wheel": wheel.name, "sha256": wheel.sha256} for wheel in PSUTIL_WHEELS}
    content = {"version": program_version(), "trees": trees, "psutil": psutil}
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


# Wheels


def fetch(wheel: Wheel) -> bytes:
    """The bytes of a wheel, from build/wheels, or from the package index that pip is set up for; always verified."""
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
            f"Mend what pip says, or put that file into {WHEELS} by hand (sha256 {wheel.sha256})"
        )


# The archive


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = 3  # Unix, whatever builds it
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, entries[name])
    return buffer.getvalue()


def write_executable(output: Path, data: bytes) -> None:
    """Replace `output` in one step: a program that runs from the old file keeps it whole on POSIX."""
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}-")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(temporary).chmod(0o755)
    Path(temporary).replace(output)


if __name__ == "__main__":
    sys.exit(main())

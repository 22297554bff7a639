"""A watch over the import of a template. It detects when the module of the job reads values that differ between runs.

Such values are random numbers, the process id, and the environment variables that differ between attempts. Values that
a library reads during its own import are allowed, because libraries use them for salts of hashes and for names.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

IMPORT_SYSTEM = "<frozen importlib._bootstrap"
"""The start of the file names in frames of Python's import system."""

SEEDERS: dict[str, tuple[str, ...]] = {
    "random": ("seed", "setstate"),
    "numpy.random.mtrand": ("seed", "set_state"),
    "torch.random": ("manual_seed", "set_rng_state"),
}
"""The functions that seed a global random generator, by module. Of these modules, the zygote imports only `random`."""

ATTEMPT_VARIABLES = frozenset(("PAGLETS_JOB_ID", "PAGLETS_ATTEMPT", "PAGLETS_RUN", "PWD"))

_NAMES = {"random": "random", "numpy.random.mtrand": "numpy.random", "torch.random": "torch"}


class ImportWatch:
    """A context manager around an import. `folder`: the folder with the modules of the job.

    `seeded`: the modules of SEEDERS whose global random generator was seeded with a value. `refusal`: the reason why
    runs would share a value; "" if they would not.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder.rstrip(os.sep) + os.sep
        self._active = False
        self._undo: list[tuple[Any, str, Any]] = []
        self._finder = _AfterImport(self._loaded)
        self._random_state = random.getstate()
        self._numpy_state: Any = None
        self.seeded: set[str] = set()
        self.refusal = ""

    def __enter__(self) -> ImportWatch:
        self._active = True
        for owner, name in ((os, "urandom"), (os, "getrandom"), (random, "_urandom"), (uuid, "uuid1")):
            if hasattr(owner, name):
                self._patch(owner, name, self._drawing(getattr(owner, name)))
        # Drop the generator of temporary names. If the import makes such a name, it needs a new generator, and the
        # watch detects its seeding.
        tempfile._name_sequence = None  # type: ignore[attr-defined]
        self._patch(os, "getpid", self._identifying(os.getpid))
        self._patch(random.Random, "seed", self._seeding_instance(random.Random.seed))
        self._patch(os._Environ, "__getitem__", self._reading(os._Environ.__getitem__))
        self._loaded(random)
        sys.meta_path.insert(0, self._finder)
        return self

    def __exit__(self, *error: object) -> None:
        self._active = False
        with suppress(ValueError):
            sys.meta_path.remove(self._finder)
        for owner, name, original in reversed(self._undo):
            setattr(owner, name, original)
        if error[0] is None:
            self._check_generators()

    def _check_generators(self) -> None:
        """Refuse the import if numbers were drawn from a global random generator that was not seeded."""
        states: dict[str, Callable[[], bool]] = {
            "random": lambda: random.getstate() != self._random_state,
            "numpy.random.mtrand": lambda: _numpy_state(sys.modules["numpy.random.mtrand"]) != self._numpy_state,
            "torch.random": lambda: _torch_was_used(sys.modules["torch.random"]),
        }
        for module, was_used in states.items():
            if module in sys.modules and module not in self.seeded and was_used():
                self._refuse(f"its import drew from {_NAMES[module]}")

    def _refuse(self, reason: str) -> None:
        self.refusal = self.refusal or reason

    def _patch(self, owner: Any, name: str, replacement: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)

    def _is_own(self, frame: FrameType | None) -> bool:
        """Return True if the call comes from code of the job, and not from a library during its own import."""
        while self._active and frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self._folder):
                return True
            if file.startswith(IMPORT_SYSTEM):
                return False
            frame = frame.f_back
        return False

    # The methods below return replacements of functions. Modules may keep references to these, so they act like the
    # originals after the watch.

    def _drawing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **options: Any) -> Any:
            if self._is_own(sys._getframe(1)):
                self._refuse("its import drew random numbers")
            return original(*args, **options)

        return draw

    def _identifying(self, original: Callable[[], int]) -> Callable[[], int]:
        def identify() -> int:
            # Check only the direct caller: libraries that the job calls, such as logging, do not keep the id.
            if self._active and sys._getframe(1).f_code.co_filename.startswith(self._folder):
                self._refuse("its import read the process id")
            return original()

        return identify

    def _seeding_instance(self, original: Callable[..., None]) -> Callable[..., None]:
        def seed(self_: random.Random, a: Any = None, *args: Any, **options: Any) -> None:
            if a is None and self._is_own(sys._getframe(1)):
                self._refuse("its import drew random numbers")
            original(self_, a, *args, **options)

        return seed

    def _reading(self, original: Callable[..., str]) -> Callable[..., str]:
        def read(environ: Any, key: str) -> str:
            if key in ATTEMPT_VARIABLES and self._is_own(sys._getframe(1)):
                self._refuse(f"its import read the environment variable {key}")
            return original(environ, key)

        return read

    def _loaded(self, module: ModuleType) -> None:
        """Replace the functions that SEEDERS lists for this loaded module, to record their calls."""
        if module.__name__ == "numpy.random.mtrand":
            self._numpy_state = _numpy_state(module)
        for name in SEEDERS[module.__name__]:
            if hasattr(module, name):
                self._patch(module, name, self._seeding(module.__name__, getattr(module, name)))

    def _seeding(self, module: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(*args: Any, **options: Any) -> Any:
            if self._active and any(value is not None for value in (*args, *options.values())):
                self.seeded.add(module)
            elif self._is_own(sys._getframe(1)):
                self._refuse("its import drew random numbers")
            return original(*args, **options)

        return seed


class _AfterImport(MetaPathFinder):
    """A finder that calls `then` with each module of SEEDERS right after it was loaded."""

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in SEEDERS:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _numpy_state(module: Any) -> tuple[Any, ...]:
    name, key, *rest = module.get_state()
    return (name, key.tobytes(), *rest)


def _torch_was_used(module: Any) -> bool:
    """Return True if the default generator of torch no longer has the state that follows from its seed."""
    torch: Any = sys.modules["torch"]
    fresh = torch.Generator()
    fresh.manual_seed(module.initial_seed())
    return not torch.equal(fresh.get_state(), module.get_rng_state())


class Generators:
    """The global random generators of a process after an import. Each run gets them as if it had done the import.

    `seeded`: the modules of SEEDERS whose generator the import has set.
    """

    def __init__(self, seeded: set[str]) -> None:
        loaded = [name for name in SEEDERS if name in seeded and name in sys.modules]
        self._states = {name: _GETTERS[name](sys.modules[name]) for name in loaded}

    def renew(self) -> None:
        """Restore the state of each generator that the import has set. Seed all others with new random bytes."""
        for name in SEEDERS:
            module: Any = sys.modules.get(name)
            if module is not None and name in self._states:
                getattr(module, SEEDERS[name][1])(self._states[name])
            elif module is not None:
                module.seed()


_GETTERS: dict[str, Callable[[Any], Any]] = {
    "random": lambda module: module.getstate(),
    "numpy.random.mtrand": lambda module: module.get_state(),
    "torch.random": lambda module: module.get_rng_state(),
}

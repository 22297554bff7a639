"""Starts the program: `python -m paglets`, the command `paglets`, and the archive, whose first file is a copy of this.

It runs under every Python from 2.7 on, only to say that a newer one is needed: so no annotations and no f-strings here.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(
        "paglets needs Python 3.11 or newer; this is Python " + sys.version.split()[0] + " (" + sys.executable + ")\n"
    )
    sys.exit(2)

INNER_COMMANDS = {"_worker": "paglets.worker.child.main", "_zygote": "paglets.worker.zygote.main"}
"""The commands that only a host starts, and the modules with their `main(arguments)`.

They are looked up first, without the modules of the command line: each process of a job pays for its imports.
"""


def main(argv=None):
    # type: (list[str] | None) -> int
    """Run the command in `argv`, by default that of sys.argv, and return the exit code.

    If the command is a script, this process becomes that script.
    """
    import importlib

    arguments = sys.argv[1:] if argv is None else argv
    inner = INNER_COMMANDS.get(arguments[0]) if arguments else None
    try:
        if inner is not None:
            return int(importlib.import_module(inner).main(arguments[1:]) or 0)
        refused = importlib.import_module("paglets.cli.script").start(arguments)
        return int(importlib.import_module("paglets.cli.main").main(arguments, refused) or 0)
    except ModuleNotFoundError as error:
        package = sys.modules["paglets"]
        if not hasattr(package, "__archive__") or not str(error.name).startswith("paglets."):
            raise
        copy = os.path.dirname(os.path.dirname(os.path.abspath(str(package.__file__))))
        sys.stderr.write("paglets: the unpacked copy of the program in " + copy + " lacks files: remove that folder\n")
        return 2


if __name__ == "__main__":
    # An archive named by a relative path must still be found after the program changed its folder.
    sys.path[0] = os.path.abspath(sys.path[0])
    sys.exit(main())

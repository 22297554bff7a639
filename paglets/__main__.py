"""Start the program, for `python -m paglets` and the command `paglets`. paglets.pyz contains a copy of this file.

Python 2.7 and later must be able to parse this file, to report that a newer version is needed. So it has no
annotations and no f-strings.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(
        "paglets needs Python 3.11 or newer; this is Python " + sys.version.split()[0] + " (" + sys.executable + ")\n"
    )
    sys.exit(2)

INNER_COMMANDS = {"_worker": "paglets.worker.child.main", "_zygote": "paglets.worker.zygote.main"}
"""The commands that only hosts run, each with the module whose `main(arguments)` runs it.

These commands are looked up first, because an import of the command line would slow the start of each job's process.
"""


def main(argv=None):
    # type: (list[str] | None) -> int
    """Run the command in `argv` (default: `sys.argv[1:]`) and return its exit code.

    If `argv` names a script, the script replaces this process, and `main` does not return.
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
        sys.stderr.write("paglets: the unpacked program in " + copy + " lacks files\nhint: remove that folder\n")
        return 2


if __name__ == "__main__":
    # A relative path of the archive would become wrong when the program changes its working directory.
    sys.path[0] = os.path.abspath(sys.path[0])
    sys.exit(main())

"""Turn a few machines that trust one another into a compute mesh.

A *host* runs on each machine. A script submits jobs to one host, and the mesh runs them wherever there is room. This
complete script, `squares.py`, submits three jobs and prints each result as its job ends:

    from dataclasses import dataclass

    import paglets


    @dataclass
    class NumberState(paglets.JobState):
        number: int = 0


    class Square(paglets.Job[NumberState]):
        State = NumberState

        def run_compute_job(self) -> int:
            return self.state.number**2


    if __name__ == "__main__":
        states = [NumberState(job_key=f"n-{number}", number=number) for number in (1, 2, 3)]
        group = paglets.submit_compute_job_group(paglets.HostClient(), Square, states)
        for job_key, record in group.as_completed(timeout=60):
            print(job_key, record["result"])

Hosts import the script to get its classes, so put the lines that submit under `if __name__ == "__main__":`.

Each public name is imported on first use. So the process of a job, which needs only `Job` and `JobState`, imports no
network code.
"""

TYPE_CHECKING = False  # type checkers treat this name like `typing.TYPE_CHECKING`; `typing` is not loaded
if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef
    from paglets.core.agent import Paglet, PagletState
    from paglets.core.errors import CallOutcomeUnknown, GroupExists, GroupLost, PagletsError, TimedOut, Unreachable
    from paglets.core.messages import Message
    from paglets.program import PROGRAM_VERSION as __version__  # noqa: N811
    from paglets.remote.client import HostClient
    from paglets.remote.proxy import PagletProxy
    from paglets.system.compute_slots import CollectingComputeJobPaglet as Job
    from paglets.system.compute_slots import CollectingComputeJobState as JobState
    from paglets.system.compute_slots import Submission as Group
    from paglets.system.compute_slots import submit_compute_job_group
    from paglets.system.services import Operation, ServiceContract, ServicePaglet

__all__ = [  # noqa: RUF022  grouped by use
    # Jobs
    "Job",
    "JobState",
    # Submission of jobs
    "submit_compute_job_group",
    "Group",
    "HostClient",
    "ArtifactRef",
    # Paglets that are not jobs
    "Paglet",
    "PagletState",
    "PagletProxy",
    "Message",
    "ServicePaglet",
    "ServiceContract",
    "Operation",
    # Errors
    "PagletsError",
    "GroupExists",
    "GroupLost",
    "Unreachable",
    "TimedOut",
    "CallOutcomeUnknown",
    # Version of the program
    "__version__",
]

_PLACES = {
    "Job": ("paglets.system.compute_slots", "CollectingComputeJobPaglet"),
    "JobState": ("paglets.system.compute_slots", "CollectingComputeJobState"),
    "submit_compute_job_group": ("paglets.system.compute_slots", "submit_compute_job_group"),
    "Group": ("paglets.system.compute_slots", "Submission"),
    "HostClient": ("paglets.remote.client", "HostClient"),
    "ArtifactRef": ("paglets.artifacts", "ArtifactRef"),
    "Paglet": ("paglets.core.agent", "Paglet"),
    "PagletState": ("paglets.core.agent", "PagletState"),
    "PagletProxy": ("paglets.remote.proxy", "PagletProxy"),
    "Message": ("paglets.core.messages", "Message"),
    "ServicePaglet": ("paglets.system.services", "ServicePaglet"),
    "ServiceContract": ("paglets.system.services", "ServiceContract"),
    "Operation": ("paglets.system.services", "Operation"),
    "PagletsError": ("paglets.core.errors", "PagletsError"),
    "GroupExists": ("paglets.core.errors", "GroupExists"),
    "GroupLost": ("paglets.core.errors", "GroupLost"),
    "Unreachable": ("paglets.core.errors", "Unreachable"),
    "TimedOut": ("paglets.core.errors", "TimedOut"),
    "CallOutcomeUnknown": ("paglets.core.errors", "CallOutcomeUnknown"),
    "__version__": ("paglets.program", "PROGRAM_VERSION"),
}
"""By public name: the module and the name of its object, which messages and databases contain instead."""

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts any attribute

    def __getattr__(name):
        """Import the object of a public name. Raises AttributeError for another name; Python suggests one like it."""
        import sys
        from importlib import import_module

        if name not in _PLACES:
            raise AttributeError(
                "module 'paglets' has no attribute " + repr(name), name=name, obj=sys.modules[__name__]
            )
        module, attribute = _PLACES[name]
        value = globals()[name] = getattr(import_module(module), attribute)
        return value


def __dir__():
    # type: () -> list[str]
    # This file has the syntax of Python 2, so that an old Python can parse it and then report that it is too old.
    shown = set(name for name in globals() if not name.startswith("_"))  # noqa: C401
    return sorted(shown.union(__all__) - {"TYPE_CHECKING"})

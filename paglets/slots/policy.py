"""The decisions about slots: pure functions of the values in `paglets.slots.model`.

A host reads its store, decides with these functions, writes its store, and then sends. No function in this package
reads a clock: durations are part of the values.
"""

from paglets.slots.eligibility import REASONS, Judgement, Reason, judge, placement_problem
from paglets.slots.granting import LOOK_AHEAD_JOBS, FreeUnits, Grant, Grants, WaitingJob, grant, queue_window
from paglets.slots.placing import Placements, UnplacedJob, load, place, preferred_matches, rank, units
from paglets.slots.stealing import BETTER_HOST_SECONDS, STOLEN_COOLDOWN_SECONDS, choose_stolen

__all__ = [
    "BETTER_HOST_SECONDS",
    "LOOK_AHEAD_JOBS",
    "REASONS",
    "STOLEN_COOLDOWN_SECONDS",
    "FreeUnits",
    "Grant",
    "Grants",
    "Judgement",
    "Placements",
    "Reason",
    "UnplacedJob",
    "WaitingJob",
    "choose_stolen",
    "grant",
    "judge",
    "load",
    "place",
    "placement_problem",
    "preferred_matches",
    "queue_window",
    "rank",
    "units",
]

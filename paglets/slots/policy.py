"""All decisions about slots, as pure functions of the values in `paglets.slots.model`.

The host reads its store, decides with these, writes its store, then sends. Nothing here knows a
clock: durations come in with the values.
"""

from paglets.slots.eligibility import REASONS, Judgement, Reason, judge, no_place
from paglets.slots.granting import LOOK_AHEAD_JOBS, FreeUnits, Grant, Grants, Waiting, grant, queue_window
from paglets.slots.placing import Placements, ToPlace, load, place, preferred_matches, rank, units
from paglets.slots.stealing import BETTER_HOST_SECONDS, STOLEN_REST_SECONDS, choose_stolen

__all__ = [
    "BETTER_HOST_SECONDS",
    "LOOK_AHEAD_JOBS",
    "REASONS",
    "STOLEN_REST_SECONDS",
    "FreeUnits",
    "Grant",
    "Grants",
    "Judgement",
    "Placements",
    "Reason",
    "ToPlace",
    "Waiting",
    "choose_stolen",
    "grant",
    "judge",
    "load",
    "no_place",
    "place",
    "preferred_matches",
    "queue_window",
    "rank",
    "units",
]

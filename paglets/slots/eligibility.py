"""May this host run that job, ever or now; and why not, in words with numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from paglets.core.refs import HostRef
from paglets.slots.addresses import same_host
from paglets.slots.amounts import short_text
from paglets.slots.model import Candidate, PlacementRules, Resources, SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a job does not run. `never`: waiting alone will not help."""

    code: str
    text: str
    never: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One host and one request. `eligible`: the job may be sent there, to start now or to wait.

    `never`: the host as it is now can never run it. `reason` and `text` are empty where eligible.
    `excess` says how far too large the request is (asked / offered, the worst resource), else 0.
    `fits_else`: it is home, and nothing but allow_home_compute is in the way. `tags`: those of the host;
    `lacking_tags`: those of the request that it does not have, whatever `reason` is. All empty where eligible.
    """

    host: HostRef
    eligible: bool
    never: bool = False
    reason: str = ""
    text: str = ""
    excess: float = 0.0
    fits_else: bool = False
    tags: tuple[str, ...] = ()
    lacking_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    rules: PlacementRules
    resources: Resources
    candidate: Candidate
    home_store_id: str
    mesh_version: str

    @property
    def is_home(self) -> bool:
        return self.candidate.host.store_id == self.home_store_id


def _versions_differ(case: _Case) -> str | None:
    theirs = case.candidate.mesh_version
    if theirs == case.mesh_version:
        return None
    return f"{case.candidate.host.name} has mesh version {theirs!r}, home has {case.mesh_version!r}"


def _home_excluded(case: _Case) -> str | None:
    if not case.is_home or case.rules.allow_home:
        return None
    return f"{case.candidate.host.name} is the job's home, and allow_home_compute is False"


def _host_excluded(case: _Case) -> str | None:
    host = case.candidate.host
    if host.name in case.rules.excluded_names:
        return f"{host.name} is excluded by name"
    url = same_host(case.rules.excluded_urls, (host.url, *case.candidate.addresses))
    return None if url is None else f"{host.name} is excluded by its address {url}"


def _tag_excluded(case: _Case) -> str | None:
    unwanted = [tag for tag in case.rules.excluded_tags if tag in case.candidate.tags]
    return f"{case.candidate.host.name} has the excluded {_tags(unwanted)}" if unwanted else None


def _tag_missing(case: _Case) -> str | None:
    missing = _lacking_tags(case)
    return f"{case.candidate.host.name} lacks the required {_tags(missing)}" if missing else None


def _lacking_tags(case: _Case) -> tuple[str, ...]:
    return tuple(tag for tag in case.rules.required_tags if tag not in case.candidate.tags)


def _too_large(case: _Case) -> str | None:
    offered = case.candidate.offered
    lacking = case.resources.lacking(offered)
    if not lacking:
        return None
    return f"too large for {case.candidate.host.name}: {short_text(case.resources, offered, lacking, 'offered')}"


def _no_way(case: _Case) -> str | None:
    return case.candidate.no_way or None


def _offline(case: _Case) -> str | None:
    return None if case.is_home or case.candidate.online else f"{case.candidate.host.name} is offline"


def _tags(tags: Sequence[str]) -> str:
    return ("tag " if len(tags) == 1 else "tags ") + ", ".join(repr(tag) for tag in tags)


_CHECKS: tuple[tuple[str, bool, Callable[[_Case], str | None]], ...] = (
    ("versions_differ", True, _versions_differ),
    ("home_excluded", True, _home_excluded),
    ("host_excluded", True, _host_excluded),
    ("tag_excluded", True, _tag_excluded),
    ("tag_missing", True, _tag_missing),
    ("too_large", True, _too_large),
    ("no_way", False, _no_way),
    ("offline", False, _offline),
)
"""(reason, never, check), what waiting cannot mend first. The further down the host that failed came,
the nearer it was to being fit."""

REASONS = tuple(code for code, _, _ in _CHECKS)


def judge(request: SlotRequest, candidate: Candidate, *, home_store_id: str, mesh_version: str) -> Judgement:
    """Whether `candidate` may get a job whose home is `home_store_id`, in a mesh of that version."""
    case = _Case(
        rules=request.rules,
        resources=request.resources,
        candidate=candidate,
        home_store_id=home_store_id,
        mesh_version=mesh_version,
    )
    for place, (code, never, check) in enumerate(_CHECKS):
        text = check(case)
        if text is not None:
            return Judgement(
                host=candidate.host,
                eligible=False,
                never=never,
                reason=code,
                text=text,
                excess=_excess(request.resources, candidate.offered) if code == "too_large" else 0.0,
                fits_else=code == "home_excluded" and not any(later(case) for _, _, later in _CHECKS[place + 1 :]),
                tags=candidate.tags,
                lacking_tags=_lacking_tags(case),
            )
    return Judgement(host=candidate.host, eligible=True)


def _excess(wanted: Resources, offered: Resources) -> float:
    ratios = [
        getattr(wanted, name) / getattr(offered, name) if getattr(offered, name) else float("inf")
        for name in wanted.lacking(offered)
    ]
    return max(ratios, default=0.0)


_WAYS_OUT = {
    "no_host": "add a host with `paglets host --peer URL`, or set allow_home_compute=True",
    "versions_differ": "start those hosts with the same --mesh-version and the same paglets.pyz",
    "home_excluded": "add a host with `paglets host --peer URL`",
    "host_excluded": "take the host out of excluded_host_names and excluded_host_urls",
    "tag_excluded": "take the tag out of excluded_host_tags",
    "tag_missing": "start a host with that --tag, or take the tag out of required_host_tags",
    "too_large": "ask for less, or add a larger host",
    "no_way": "start a host that both can connect to; the job is placed as soon as they hear of each other",
    "offline": "start the host again; the job is placed as soon as it is back",
}

_COUNTED = {
    "versions_differ": "of another mesh version",
    "home_excluded": "home itself",
    "host_excluded": "excluded by name or address",
    "tag_excluded": "with an excluded tag",
    "tag_missing": "without a required tag",
    "too_large": "too small",
    "no_way": "out of reach",
    "offline": "offline",
}

_HOME_TOO = "set allow_home_compute=True"

MAX_TAGS = 20
MAX_EXAMPLES = 3
"""Hosts named for each reason; the rest is counted."""


def no_place(judgements: Sequence[Judgement]) -> Reason | None:
    """Why no host may get the job, or None where one may.

    `never` only where no member can ever; then the hosts that came nearest are spoken of first.
    """
    if any(judgement.eligible for judgement in judgements):
        return None
    if not judgements:
        return Reason(code="no_host", text=f"the mesh has no host. Ways out: {_WAYS_OUT['no_host']}", never=True)
    never = all(judgement.never for judgement in judgements)
    by_code = {code: [each for each in judgements if each.reason == code] for code in reversed(REASONS)}
    found = {code: group for code, group in by_code.items() if group}
    code = next(iter(found))
    nowhere = tags_nowhere(
        [tag for tag in judgements[0].lacking_tags if all(tag in each.lacking_tags for each in judgements)],
        [tag for each in judgements for tag in each.tags],
    )
    head = f"{f'{nowhere}; ' if nowhere else ''}no member can {'ever run' if never else 'take'} it: "
    parts = [f"{len(group)} {_COUNTED[each]} ({_examples(group)})" for each, group in found.items()]
    ways = "; ".join(_ways_out(found))
    return Reason(code=code, text=f"{head}{', '.join(parts)}. Ways out: {ways}", never=never)


def _ways_out(found: Mapping[str, Sequence[Judgement]]) -> list[str]:
    """Each once. To let home run it is none where home does not fit."""
    home = [_HOME_TOO] if any(each.fits_else for each in found.get("home_excluded", ())) else []
    codes = [code for code in found if code != "home_excluded" or home or len(found) == 1]
    return [*dict.fromkeys(_WAYS_OUT[code] for code in codes), *home]


def tags_nowhere(missing: Sequence[str], there: Collection[str]) -> str:
    """That no host has the tags `missing`, and which there are; "" where none is missing."""
    known = sorted(set(there))
    near = [match for tag in missing for match in get_close_matches(tag, known, 1)]
    hint = f": did you mean {' and '.join(map(repr, near))}?" if near else ";"
    more = f" and {len(known) - MAX_TAGS} more" if len(known) > MAX_TAGS else ""
    listed = f"there are: {', '.join(known[:MAX_TAGS])}{more}" if known else "no host has any tag"
    return f"no host has the {_tags(missing)}{hint} {listed}" if missing else ""


def _examples(group: Sequence[Judgement]) -> str:
    nearest = sorted(group, key=lambda each: (each.excess, each.host.name, each.host.store_id))
    if nearest[0].reason == "too_large":
        return f"the nearest: {nearest[0].text}"
    named = "; ".join(each.text for each in nearest[:MAX_EXAMPLES])
    return named + (f"; and {len(group) - MAX_EXAMPLES} more" if len(group) > MAX_EXAMPLES else "")

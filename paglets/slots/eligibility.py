"""The rules that decide whether a host can run a job, now or at any time, and the texts that say why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from paglets.core.refs import HostRef
from paglets.core.text import listed
from paglets.slots.addresses import same_host
from paglets.slots.amounts import bare_text, resources_text
from paglets.slots.model import Candidate, PlacementRules, Resources, SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A reason why a job does not run. `never`: True if waiting does not help. `remedy` returns advice for `code`."""

    code: str
    text: str
    never: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of checking one request against one host.

    `eligible`: True if the job may be sent to the host, to start or to wait. The following fields are empty in that
    case. `never`: True if the host can never run the job with its current configuration. `excess`: the highest ratio
    asked / offered of a resource if the request is too large, else 0. `asks` and `offers`: what is asked and offered of
    the resources that do not suffice. `is_home`: True if the host is the job's home. `tags`: all tags of the host.
    `lacking_tags`: the required tags that the host does not have.
    """

    host: HostRef
    eligible: bool
    never: bool = False
    reason: str = ""
    text: str = ""
    excess: float = 0.0
    asks: str = ""
    offers: str = ""
    is_home: bool = False
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


def _peer_awaited(case: _Case) -> str | None:
    urls = case.candidate.awaited_peers
    if not urls or not case.is_home or case.rules.allow_home:
        return None
    more = f" and {len(urls) - 1} more" if len(urls) > 1 else ""
    return f"no host has answered yet at {urls[0]}{more} (--peer)"


def _home_excluded(case: _Case) -> str | None:
    if not case.is_home or case.rules.allow_home or case.candidate.is_only:
        return None
    return f"{case.candidate.host.name} is the job's home (allow_home_compute is False)"


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
    lacking = case.resources.lacking(case.candidate.offered)
    return f"{_asks(case)} asked, {case.candidate.host.name} offers {_offers(case)}" if lacking else None


def _asks(case: _Case) -> str:
    lacking = case.resources.lacking(case.candidate.offered)
    return resources_text(case.resources, lacking) if lacking else ""


def _offers(case: _Case) -> str:
    return bare_text(case.candidate.offered, case.resources.lacking(case.candidate.offered))


def _no_route(case: _Case) -> str | None:
    return case.candidate.no_route or None


def _offline(case: _Case) -> str | None:
    return None if case.is_home or case.candidate.online else f"{case.candidate.host.name} is offline"


def _tags(tags: Sequence[str]) -> str:
    return ("tag " if len(tags) == 1 else "tags ") + ", ".join(repr(tag) for tag in tags)


_CHECKS: tuple[tuple[str, bool, Callable[[_Case], str | None]], ...] = (
    ("versions_differ", True, _versions_differ),
    ("peer_awaited", False, _peer_awaited),
    ("host_excluded", True, _host_excluded),
    ("tag_excluded", True, _tag_excluded),
    ("tag_missing", True, _tag_missing),
    ("too_large", True, _too_large),
    ("home_excluded", True, _home_excluded),
    ("no_route", False, _no_route),
    ("offline", False, _offline),
)
"""The checks in their order, as (reason code, never, function). A host that fails a later check is nearer to running
the job. For example, a host that fails `home_excluded` could run the job if jobs were allowed at home."""

REASONS = tuple(code for code, _, _ in _CHECKS)


def judge(request: SlotRequest, candidate: Candidate, *, home_store_id: str, mesh_version: str) -> Judgement:
    """Decide whether `candidate` may get a job. `home_store_id`: the store id of the job's home."""
    case = _Case(
        rules=request.rules,
        resources=request.resources,
        candidate=candidate,
        home_store_id=home_store_id,
        mesh_version=mesh_version,
    )
    for code, never, check in _CHECKS:
        text = check(case)
        if text is not None:
            return Judgement(
                host=candidate.host,
                eligible=False,
                never=never,
                reason=code,
                text=text,
                excess=_excess(request.resources, candidate.offered) if code == "too_large" else 0.0,
                asks=_asks(case),
                offers=_offers(case),
                is_home=case.is_home,
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


_REMEDIES = {
    "peer_awaited": "start a host there, start this one without that --peer, or set allow_home_compute=True",
    "versions_differ": "start those hosts with the same --mesh-version and the same paglets.pyz",
    "home_excluded": "add a host with `paglets host --bind-public auto --peer URL`, or set allow_home_compute=True",
    "host_excluded": "remove the host from excluded_host_names and excluded_host_urls",
    "tag_excluded": "remove the tag from excluded_host_tags",
    "tag_missing": "start a host with that --tag, or remove the tag from required_host_tags",
    "too_large": "ask for less, or add a larger host",
    "no_route": "start a host that both can connect to",
    "offline": "restart an offline host, or remove it for good: `paglets mesh forget NAME`",
}


def remedy(*codes: str) -> str:
    """Return the advice for the latest check among `codes`; "" if there is none. See `_CHECKS`."""
    known = [code for code in codes if code in _REMEDIES]
    return _REMEDIES[max(known, key=REASONS.index)] if known else ""


_MANY = {
    "versions_differ": "have another mesh version",
    "host_excluded": "are excluded by name or address",
    "tag_excluded": "have an excluded tag",
    "offline": "are offline",
}

MAX_NAMES = 2
"""Maximum number of hosts to name for each reason. Further hosts are only counted."""

MAX_CHARACTERS = 70
"""Maximum length of a reason, so that a line with it fits into 100 characters. A longer first part is not cut."""


def placement_problem(judgements: Sequence[Judgement]) -> Reason | None:
    """Return the reason why no host may get the job; None if a host may get it.

    Its `never` is True only if no host can ever run the job. Its text starts with the hosts that are nearest to running
    the job. `judgements`: one for each host; never empty, because this host is among them.
    """
    if any(judgement.eligible for judgement in judgements):
        return None
    by_code = {code: [each for each in judgements if each.reason == code] for code in reversed(REASONS)}
    found = {code: group for code, group in by_code.items() if group}
    nowhere = tags_nowhere(
        [tag for tag in judgements[0].lacking_tags if all(tag in each.lacking_tags for each in judgements)],
        [tag for each in judgements for tag in each.tags],
    )
    never = all(judgement.never for judgement in judgements)
    if nowhere and never:
        return Reason(code="tag_missing", text=nowhere, never=True)
    parts = [nowhere] if nowhere else []
    parts += [_phrase(code, group) for code, group in found.items()]
    return Reason(code=next(iter(found)), text=_joined(parts), never=never)


def _joined(parts: Sequence[str]) -> str:
    """Return a text of the parts that fit into MAX_CHARACTERS. The first part is always in it."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(part) + 2 <= MAX_CHARACTERS:
            text += f"; {part}"
    return text


def _phrase(code: str, group: Sequence[Judgement]) -> str:
    """Return a text that says why the hosts of `group` may not get the job. All have the reason `code`."""
    nearest = min(group, key=lambda each: (each.excess, each.is_home, each.host.name, each.host.store_id))
    if len(group) == 1:
        return nearest.text
    if code == "too_large":
        return f"{nearest.asks} asked, the largest host ({nearest.host.name}) offers {nearest.offers}"
    if code == "tag_missing":
        return f"{_hosts(group)} lack {_lacked(group)}"
    return f"{_hosts(group)} {_MANY[code]}" if code in _MANY else nearest.text


def _lacked(group: Sequence[Judgement]) -> str:
    lacked = {each.lacking_tags for each in group}
    return f"the required {_tags(group[0].lacking_tags)}" if len(lacked) == 1 else "a required tag"


def _hosts(group: Sequence[Judgement]) -> str:
    """Return the names of the hosts as a text, such as `w1 and w2` or `w1, w2 and 7 more`."""
    names = sorted(each.host.name for each in group)
    more = [f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return listed((*names[:MAX_NAMES], *more))


def tags_nowhere(missing: Sequence[str], there: Collection[str]) -> str:
    """Return a text that says that no host has the `missing` tags, and which tags exist; "" if none is missing."""
    if not missing:
        return ""
    text, known = f"no host has the {_tags(missing)}", sorted(set(there))
    if not known:
        return f"{text}; none has any tag"
    near = [match for tag in missing for match in get_close_matches(tag, known, 1)]
    text += f": did you mean {listed(map(repr, near))}?" if near else ";"
    return f"{text} there are: {_some(known, MAX_CHARACTERS - len(text))}"


def _some(words: Sequence[str], room: int) -> str:
    """Return a text with as many of the words as fit into `room` characters, but with at least one.

    If words are left out, the text ends with their number, such as " and 3 more".
    """
    shown = 1
    while shown < len(words) and len(", ".join(words[: shown + 1])) <= room:
        shown += 1
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + more

"""Hints for unknown commands. For a word that other tools use, the hint is the equivalent paglets command.

`HINTS` lists these words. For any other word, the hint is the most similar command, or the list of all commands.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Sequence

from paglets.core.errors import Invalid

MOST_CHARACTERS = 40
"""The maximum length of a quoted word in a message. Longer words are cut."""

MOST_HINT_CHARACTERS = 100

START = "paglets host --background starts a host on this machine"
STOP = "paglets stop stops the host on this machine"
RUN = "paglets SCRIPT.py runs a script that submits jobs"
CANCEL = "paglets jobs cancel GROUP[/JOB] cancels jobs"
HOSTS = "paglets mesh hosts lists the hosts"
JOIN = "paglets host --bind-public auto --peer URL starts a host that joins the mesh of URL"
FORGET = "paglets mesh forget HOST removes a host that will not come back"
LIST = "paglets jobs list lists waiting and running jobs; with GROUP all jobs of a group"
COUNTS = "paglets jobs status GROUP counts the jobs of a group"
GROUPS = "paglets jobs groups lists the groups"
RESULTS = "paglets jobs groups GROUP shows the results and failures of a group"
SHOW = "paglets jobs show GROUP/JOB shows all details of a job"
WHY = "paglets jobs why GROUP[/JOB] explains why jobs wait or failed"
LOGS = "paglets logs GROUP/JOB shows the output of a job; -f follows it"
AGAIN = "paglets jobs why GROUP explains why jobs failed; submit them again in a new group"
GET = "paglets artifacts get GROUP/JOB fetches the file of a job; --group GROUP those of a group"
PUT = "paglets artifacts put FILE stores a file on a host"
REMOVE = "paglets artifacts rm ID deletes a file"
FILES = "paglets artifacts list lists the files that hosts keep"
FILE = "paglets artifacts info ID describes a file"
TOP = "paglets jobs top --watch shows the load of all hosts"
DOCTOR = "paglets doctor finds common problems"

_TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Columns: parent command, unknown words, hints.
    ("", "hosts nodes node members workers machines cluster", (HOSTS,)),
    ("", "start serve server up daemon worker agent", (START,)),
    ("", "down shutdown quit exit", (STOP,)),
    ("", "restart", (STOP, START)),
    ("", "join connect add", (JOIN,)),
    ("", "forget leave", (FORGET, STOP)),
    ("", "run submit exec map batch sbatch qsub python script", (RUN,)),
    ("", "status state", (COUNTS, GROUPS)),
    ("", "groups group", (GROUPS,)),
    ("", "ls ps queue squeue qstat tasks", (LIST,)),
    ("", "top stats load usage dashboard ui monitor", (TOP,)),
    ("", "kill cancel abort terminate scancel qdel", (CANCEL,)),
    ("", "rm delete remove del", (CANCEL, REMOVE)),
    ("", "tail log output cat attach", (LOGS,)),
    ("", "wait", ("paglets jobs wait GROUP waits until all jobs of a group have ended",)),
    ("", "watch progress follow", ("paglets jobs watch GROUP shows the progress of a group",)),
    ("", "why explain", (WHY,)),
    ("", "show info describe inspect", (SHOW, FILE)),
    ("", "history", ("paglets jobs history GROUP lists ended jobs",)),
    ("", "results result", (RESULTS, GET)),
    ("", "fetch get download pull", (GET,)),
    ("", "put send upload push", (PUT,)),
    ("", "files", (FILES,)),
    ("", "retry rerun resubmit requeue", (AGAIN,)),
    ("", "check diagnose test", (DOCTOR,)),
    ("host", "start run up serve add new", (START,)),
    ("host", "stop kill end down shutdown", (STOP,)),
    ("host", "restart", (STOP, START)),
    ("host", "list ls ps hosts status info show", (HOSTS,)),
    ("host", "join connect", (JOIN,)),
    ("host", "rm remove delete forget", (STOP, FORGET)),
    ("mesh", "list ls show status info nodes members", (HOSTS,)),
    ("mesh", "join add connect", (JOIN,)),
    ("mesh", "rm remove delete leave kick", (FORGET, STOP)),
    ("jobs", "ls all", (LIST,)),
    ("jobs", "running", ("paglets jobs ps lists running jobs",)),
    ("jobs", "failed failures", ("paglets jobs list GROUP --status failed lists the failed jobs", WHY)),
    ("jobs", "kill stop abort end terminate", (CANCEL,)),
    ("jobs", "rm delete remove forget", (CANCEL,)),
    ("jobs", "tail log output cat", (LOGS,)),
    ("jobs", "info describe inspect", (SHOW,)),
    ("jobs", "results result", (RESULTS,)),
    ("jobs", "fetch get download", (GET,)),
    ("jobs", "submit run start new create", (RUN,)),
    ("jobs", "retry rerun resubmit requeue restart", (AGAIN,)),
    ("artifacts", "ls", (FILES,)),
    ("artifacts", "delete remove del", (REMOVE,)),
    ("artifacts", "fetch download pull", (GET,)),
    ("artifacts", "upload push send store add", (PUT,)),
    ("artifacts", "show describe", (FILE,)),
    ("key", "create gen generate init", ("paglets key new creates a key for a new mesh",)),
    ("config", "init new create", ("paglets init writes a configuration file",)),
    ("config", "validate lint test", ("paglets config check checks a configuration file",)),
    ("config", "list ls get", ("paglets config show shows each setting of a host",)),
    *(
        (above, "help", (f"paglets {above} --help",))
        for above in ("host", "mesh", "jobs", "artifacts", "key", "config")
    ),
)

HINTS = {f"{above} {word}".strip(): lines for above, words, lines in _TABLE for word in words.split()}
"""The hints for commands of other tools, by unknown command, such as `kill` or `jobs kill`."""

INSTEAD = {
    "host": "paglets host --name {} starts a host with that name",
    "jobs ps": "paglets jobs list {} lists the jobs of that group",
    "jobs queue": "paglets jobs list {} lists the jobs of that group",
    "mesh hosts": "paglets jobs queue --at {} shows that host",
    "list": "paglets jobs list {} lists the jobs of that group",
}
"""The hint for a user who gives a name to a command that takes none, by command."""


def unknown_command(above: str, word: str, known: Collection[str]) -> Invalid:
    """Return the error for an unknown subcommand `word` of the command `above` ("": of `paglets` itself)."""
    name = f"{above} {word[:MOST_CHARACTERS]}".strip()
    return Invalid(f"no command {name!r}", hint=list(HINTS.get(name) or [_near(above, word, known)]))


def _near(above: str, word: str, known: Collection[str]) -> str:
    if near := difflib.get_close_matches(word, known, 1):
        return f"did you mean {f'{above} {near[0]}'.strip()!r}?"
    listed = f"choose from {', '.join(known)}"
    return listed if len(listed) <= MOST_HINT_CHARACTERS else f"{f'paglets help {above}'.rstrip()} lists the commands"


def unexpected_word_hints(above: str, word: str) -> list[str]:
    """Return the hints for a word that the command `above` does not accept."""
    found = HINTS.get(f"{above} {word}")
    if found:
        return list(found)
    return [INSTEAD[above].format(shlex.quote(word[:MOST_CHARACTERS]))] if above in INSTEAD else []


def flag_before_command(above: str, arguments: Sequence[str], commands: Collection[str]) -> Invalid:
    """Return the error for an option that precedes the subcommand of the command `above`."""
    flag = arguments[0].partition("=")[0][:MOST_CHARACTERS]
    place = next((place for place, word in enumerate(arguments) if word in commands), None)
    if place is None:
        hint = f"{f'paglets help {above}'.rstrip()} lists the commands"
        return Invalid(f"missing command before {flag}", hint=[hint])
    words = [*arguments[place:], *arguments[:place]]
    line = f"paglets {f'{above} {shlex.join(words)}'.strip()}"
    hint = line if len(line) <= MOST_HINT_CHARACTERS else f"paglets {f'{above} {words[0]}'.strip()} ... {flag} ..."
    return Invalid(f"{flag} must follow the command {words[0]!r}", hint=[hint])

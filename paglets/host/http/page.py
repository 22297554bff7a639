"""The web page that a browser gets from a host: a constant, the same for every host and every visitor.

A browser has no mesh key, so it would otherwise get an error as JSON. The page says what a paglets host is and which
commands to run. It contains no data of the host or its mesh, no script, no form and no reference to other resources.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from types import MappingProxyType

from paglets.host.http.head import RequestHead
from paglets.wire.http1 import JSON_TYPE
from paglets.wire.request import Response

HTML_TYPE = "text/html"
MOST_ACCEPT_CHARACTERS = 1_000
"""The maximum length of an Accept field. Browsers send about 150 characters; a client that sends more gets JSON."""

_API = "/v1/"
_ICON = "/favicon.ico"
_ICON_RANGE = "image/*"
_RANGE = re.compile(r"\s*([a-z*]+/[a-z0-9.+*-]+)\s*(?:;\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?", re.ASCII)

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 38rem; padding: 2rem 1.25rem;
  font: 1.0625rem/1.6 system-ui, sans-serif; color: #1c2024; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
dt { margin-top: .9rem; }
dd { margin: .2rem 0 0; }
code { font: .95em/1.4 ui-monospace, monospace; padding: .15em .4em; border-radius: .3em;
  background: #eef1f4; overflow-wrap: anywhere; }
.note { color: #59636e; font-size: .95rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8ea; background: #15181b; }
  code { background: #262b30; }
  .note { color: #a0a8b0; }
}
"""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>A paglets host</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>This is a paglets host</h1>
<p>paglets turns a few machines that trust one another into a compute mesh. A host answers only requests that are
signed with the key of its mesh. A browser does not have that key, so this page shows no job, no file and no
machine.</p>
<h2>What to run</h2>
<p>Open a terminal on a machine of the mesh, and run one of these commands:</p>
<dl>
<dt><code>paglets jobs groups</code></dt>
<dd>List the groups of jobs, and how many of their jobs are done.</dd>
<dt><code>paglets mesh hosts</code></dt>
<dd>List the hosts, whether they are online, and what they have free.</dd>
<dt><code>paglets doctor</code></dt>
<dd>Check this machine and the mesh, and say what to fix.</dd>
<dt><code>paglets --help</code></dt>
<dd>List all commands.</dd>
</dl>
<p class="note">If <code>paglets</code> is not found, name the file: <code>python3 paglets.pyz jobs groups</code>. If a
command finds no host, name this one: <code>--at</code> and the address of this page.</p>
</main>
</body>
</html>
""".encode()

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = MappingProxyType(
    {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
)
"""The additional headers of the page. The server adds the headers of every reply, such as `cache-control`."""


def page_for(head: RequestHead) -> Response | None:
    """Return the page, or status 404 for its icon, if a browser sent the request. Return None for an API request.

    A request with a signature or token, valid or not, is an API request. So is a request for a path below `/v1/`.
    """
    path = head.target.partition("?")[0]
    if head.method not in ("GET", "HEAD") or path.startswith(_API) or _claims_key(head):
        return None
    accept = head.fields.get("accept", "")
    if path == _ICON and prefers(accept, _ICON_RANGE):
        return Response(status=404, headers={**HEADERS, "content-type": "image/x-icon"})
    if not prefers(accept, HTML_TYPE):
        return None
    status = 200 if path == "/" else 404
    return Response(status=status, body=PAGE, headers={**HEADERS, "content-type": f"{HTML_TYPE}; charset=utf-8"})


def _claims_key(head: RequestHead) -> bool:
    return "authorization" in head.fields or any(name.startswith("x-paglets-") for name in head.fields)


def prefers(accept: str, media: str) -> bool:
    """Return True if an Accept field ranks the media type `media` above JSON. Return False if both rank equally."""
    if len(accept) > MOST_ACCEPT_CHARACTERS:
        return False
    qualities = dict(_ranges(accept.lower()))
    return _quality(qualities, media) > _quality(qualities, JSON_TYPE)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the media ranges and their quality values. Skip ranges that are malformed or have other parameters."""
    for text in accept.split(","):
        match = _RANGE.fullmatch(text)
        if match is not None:
            yield match[1], float(match[2] or 1)


def _quality(qualities: dict[str, float], media: str) -> float:
    """Return the quality value of the most specific range that includes `media`, or 0 if no range does."""
    ranges = (media, f"{media.partition('/')[0]}/*", "*/*")
    return next((qualities[each] for each in ranges if each in qualities), 0.0)

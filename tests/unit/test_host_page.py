"""The page for browsers: who gets it, and that it is one constant which can do nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from paglets.host.http.head import RequestHead
from paglets.host.http.page import MOST_ACCEPT_CHARACTERS, PAGE, page_for, prefers

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FIREFOX_ICON = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"


def head(target: str = "/", accept: str | None = FIREFOX, method: str = "GET", **fields: str) -> RequestHead:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return RequestHead(method=method, target=target, fields={**({} if accept is None else {"accept": accept}), **named})


@pytest.mark.parametrize(
    "accept",
    [
        CHROME,
        FIREFOX,
        "text/html",
        "TEXT/HTML",
        "text/*",
        "text/html , */*;q=0.1",
        "text/html;q=0.9,application/json;q=0.8",
    ],
)
def test_a_client_that_ranks_html_above_json_is_a_browser(accept: str) -> None:
    assert prefers(accept, "text/html")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, text/html",
        "text/html;q=0.5, */*",
        "text/html;q=0",
        "text/html;q=2",
        "text/html;q=x",
        "text/html;level=1",
        "text/html q=1",
        ",;/,",
        "text/html," + "a" * MOST_ACCEPT_CHARACTERS,
    ],
)
def test_a_client_that_ranks_json_as_high_or_says_nothing_clear_gets_json(accept: str) -> None:
    assert not prefers(accept, "text/html")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("target", "status"), [("/", 200), ("/?a=b", 200), ("/jobs", 404), ("/v1", 404)])
def test_a_browser_gets_the_same_page_everywhere(method: str, target: str, status: int) -> None:
    page = page_for(head(target, method=method))
    assert page is not None
    assert (page.status, page.body, page.headers["content-type"]) == (status, PAGE, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "request_head",
    [
        head(accept=None),
        head(accept="*/*"),
        head("/v1/host"),
        head(method="POST"),
        head(authorization="Bearer k"),
        head(x_paglets_signature="bad"),
        head("/favicon.ico", accept="*/*"),
    ],
)
def test_a_request_of_the_api_is_not_answered_by_the_page(request_head: RequestHead) -> None:
    assert page_for(request_head) is None


def test_a_browser_that_looks_for_an_icon_is_told_that_there_is_none() -> None:
    icon = page_for(head("/favicon.ico", accept=FIREFOX_ICON))
    assert icon is not None
    assert (icon.status, icon.body) == (404, b"")


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_is_small_and_loads_and_runs_nothing() -> None:
    elements = Elements()
    elements.feed(PAGE.decode())
    assert len(PAGE) < 8 << 10
    assert not {"script", "img", "link", "iframe", "form", "a", "object"} & set(elements.tags)
    assert elements.attributes == {"lang", "charset", "name", "content", "class"}
    assert not re.search(r"https?:|url\(|@import", PAGE.decode())
    assert all(
        f"<code>paglets {command}</code>" in PAGE.decode() for command in ("jobs groups", "mesh hosts", "doctor")
    )


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    page = page_for(head())
    style = re.search(rb"<style>(.*?)</style>", PAGE, re.DOTALL)
    assert page is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy.pop("style-src") == f"'sha256-{digest}'"
    assert set(policy.values()) == {"'none'"}
    assert {"default-src", "frame-ancestors", "base-uri", "form-action"} == set(policy)

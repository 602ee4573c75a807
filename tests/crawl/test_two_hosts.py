"""No way out: a page of one host has nothing sent to another one, however it words that.

Two real servers on one machine, under names that are two hosts to everybody, and a real Scrapy
process. The other server's log is the proof.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from crawling import Job, Process
from reading_service import ReadingService, Said
from sites import Answer, Gate, Plain, Seen, Session, png, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crawling import Crawl

#: What must not get about. The site's own cookie and the answers that it got come to these.
SECRETS = ("spider-cookie", "spider-token", "spider-header", "formdata-password", "spider-body")
HEADERS = {"Authorization": "Bearer spider-token", "X-Api-Key": "spider-header"}
FORMDATA = {"user": "ada", "password": "formdata-password"}
STATUSES = (301, 302, 303, 307, 308)

#: Addresses elsewhere, by what becomes of them; the other server, or this one under another name,
#: would be reached by those that have a port.
OTHER_HOST = (
    "http://localhost:{other}/stolen",
    "//localhost:{other}/stolen",
    "//localhost:{other}",
    "HTTP://LOCALHOST:{other}/stolen",
    "https://localhost:{other}/stolen",
    "http://localhost:{own}/stolen",
    "http://127.0.0.1:{other}/stolen",
    "http://127.0.0.1:{own}@localhost:{other}/stolen",
    "http://ada:pw@127.0.0.1:{own}/stolen",
    "http://localhost:{other}#@127.0.0.1:{own}/stolen",
    "http://2130706433:{own}/stolen",
    "http://0x7f000001:{own}/stolen",
    "http://0177.0.0.1:{own}/stolen",
    "http://127.1:{own}/stolen",
    "http://127%2e0%2e0%2e1:{own}/stolen",
    "http://[::ffff:127.0.0.1]:{own}/stolen",
    "http://[::ffff:7f00:1]:{other}/stolen",
    "http://[fe80::1]/stolen",
    "http://169.254.169.254/latest/meta-data",
    "http://127.0.0.1.:{own}/stolen",
    "http://xn--e1aybc.example/stolen",
    "http://127.0.0.1:{own}.evil.example/stolen",
)
OTHER_SCHEME = (
    "file:///etc/hostname",
    "ftp://127.0.0.1:{own}/stolen",
    "s3://bucket/stolen",
    "javascript:location='http://localhost:{other}/stolen'",
    "mailto:ada@localhost",
)


@dataclass(frozen=True)
class Attack:
    """How one page tries it.

    :param address: where it wants something sent
    :param reason: why that comes to nothing
    :param status: of the answer to ``/moved``, ``/verify`` and a page that gets the form, which
        redirect there
    """

    address: str
    reason: str
    image: str = "/captcha.png"
    action: str = "/verify/{number}"
    head: str = ""
    button: str = ""
    method: str = "post"
    status: int = 302


def attacks() -> Iterator[Attack]:
    for addresses, kind in ((OTHER_HOST, "host"), (OTHER_SCHEME, "scheme")):
        for address in addresses:
            button = "<button formaction='{address}'>Go</button>"
            yield Attack(address, f"image_{kind}", image="{address}")
            yield Attack(address, f"form_{kind}", action="{address}")
            yield Attack(address, f"form_{kind}", button=button)
            yield Attack(address, f"image_{kind}", image="/moved/{number}")
            yield Attack(address, f"redirect_{kind}", status=308)
    broken = "http://[::1/stolen"
    yield Attack(broken, "image_host", image="{address}")
    yield Attack(broken, "form_invalid", action="{address}")
    yield Attack(broken, "redirect_host", status=308)
    yield Attack("data:text/html,stolen", "form_scheme", action="{address}")
    yield Attack("data:text/html,stolen", "redirect_scheme", status=308)
    other = OTHER_HOST[0]
    for status in STATUSES:
        yield Attack(other, "image_host", image="/moved/{number}", status=status)
        yield Attack(other, "redirect_host", status=status)
        yield Attack(other, "redirect_host", method="get", status=status)
        yield Attack(other, "redirect_host", action="/hop/{number}", status=status)
        yield Attack(other, "redirect_host", action="/back/{number}", status=status)
    base = "<base href='{address}'>"
    yield Attack(other, "image_host", head=base, image="captcha.png")
    yield Attack(other, "image_host", head=base, image="/captcha.png")
    own = "http://127.0.0.1:{own}/captcha.png"
    yield Attack(other, "form_host", head=base, image=own)
    yield Attack(other, "form_host", head=base, image=own, action="verify")
    yield Attack(
        other, "form_host", head=base, image=own, button="<button formaction=go>Go</button>"
    )


class Hostile(Gate):
    """Each of its pages is a wall with an attack in it, whatever the visitor has passed."""

    def __init__(self, other: Plain) -> None:
        super().__init__()
        self.other = other
        self.attacks = list(attacks())

    def word(self, text: str, number: int) -> str:
        address = self.attacks[number].address
        ports = {"own": self.server_port, "other": self.other.server_port}
        return text.format(address=address, number=number, **ports).format(**ports)

    def route(self, session: Session, seen: Seen) -> Answer:
        kind, _, number = seen.path.removeprefix("/").partition("/")
        if not number:
            return super().route(session, seen)
        attack = self.attacks[int(number)]
        if kind == "page" and seen.method == "GET":
            return self.wall(session, number)
        if kind in {"hop", "back"}:
            return redirect(f"/{'verify' if kind == 'hop' else 'page'}/{number}", 308)
        return redirect(self.word("{address}", int(number)), attack.status)

    def wall_html(self, session: Session, back_to: str) -> str:
        attack = self.attacks[int(back_to)]
        return self.word(
            f"<title>Captcha</title>{attack.head}<form method={attack.method} "
            f"action='{attack.action}'><img src='{attack.image}' alt=captcha>"
            f"<input name=code><input name=password>{attack.button}</form>",
            int(back_to),
        )


def sent_to(site: Plain) -> str:
    """All that reached a server, as one text."""
    return json.dumps(
        [
            [seen.method, seen.path, dict(seen.query), dict(seen.headers), repr(seen.body)]
            for seen in site.seen
        ]
    )


def secrets_of(site: Gate) -> set[str]:
    """The site's cookies, and the answers that it got."""
    answers = {seen.form.get("code") or seen.query.get("code", "") for seen in site.submissions}
    answers |= {answer for _, answer in [*site.accepted, *site.rejected]}
    return {*SECRETS, *site.sessions, *answers} - {""}


def asked(site: Plain, paths: list[str]) -> list[dict[str, Any]]:
    cookies = {"mine": "spider-cookie"}
    return [{"url": f"{site.url}{path}", "headers": HEADERS, "cookies": cookies} for path in paths]


def test_nothing_reaches_another_host_whatever_the_page_says(tmp_path: Path) -> None:
    with Plain() as other, Hostile(other) as site:
        count = len(site.attacks)
        settings = {
            "CAPTCHA_SITES": {site.netloc: {"formdata": FORMDATA, "max_attempts": 2}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "CAPTCHA_BREAKER": 10_000,
            "HTTPERROR_ALLOW_ALL": True,
        }
        paths = [f"/page/{number}" for number in range(count)]
        asks = asked(site, paths)
        for number, request in enumerate(asks):  # some sessions, for they solve beside one another
            request["meta"] = {"cookiejar": number % 8}
        result = Process(Job(asks, settings)).result()
        assert other.seen == []
    assert site.requests("/stolen*") == []
    assert result.items == []
    reasons = {
        int(failure["url"].rpartition("/")[2]): failure["reason"] for failure in result.failures
    }
    assert reasons == {number: attack.reason for number, attack in enumerate(site.attacks)}
    for reason, number in Counter(reasons.values()).items():
        assert result.captcha[f"failed/{reason}"] == number
        assert result.site_stats(site.netloc)[f"failed/{reason}"] == number
    assert count > 160
    # the answers did get as far as the site itself, the methods that keep a body included
    answered = [seen for seen in site.seen if seen.path.startswith(("/verify/", "/hop/", "/back/"))]
    assert {(seen.method, "formdata-password" in seen.body.decode()) for seen in answered} >= {
        ("POST", True),
        ("GET", False),
    }


def test_a_listed_image_host_learns_nothing_but_the_image_s_address(
    crawl: Callable[..., Crawl],
) -> None:
    class Images(Plain):
        def answer(self, seen: Seen) -> Answer:
            if seen.path == "/once":
                return redirect(f"http://localhost:{self.server_port}/twice.png")
            return Answer(png(1), content_type="image/png", headers=(("Set-Cookie", "a=1"),))

    class Foreign(Gate):
        def wall_html(self, session: Session, back_to: str) -> str:
            session.code_is_out = True
            html = super().wall_html(session, back_to)
            return html.replace("/captcha.png", f"http://localhost:{other.server_port}/once")

    with Images() as other, Foreign() as site:
        rule = {"image_hosts": [f"localhost:{other.server_port}"], "formdata": FORMDATA}
        result = crawl(site, asked(site, ["/page/1?token=spider-body"]), rule)
        sent = sent_to(other)
    assert result.names == ["page 1"]
    assert [seen.path for seen in other.seen] == ["/once", "/twice.png"]
    assert {seen.headers["referer"] for seen in other.seen} == {f"{site.url}/"}
    assert not [secret for secret in secrets_of(site) if secret in sent]


@pytest.mark.parametrize("walled", [False, True])
@pytest.mark.parametrize("status", STATUSES)
def test_after_a_redirect_to_get_no_body_goes_to_another_host(
    crawl: Callable[..., Crawl], status: int, walled: bool
) -> None:
    """Scrapy follows where the spider's own request leads, by its rules; browsers would, too.

    The page is asked for by POST, and its first redirect makes that a GET.
    """

    class Leading(Gate):
        def is_walled(self, session: Session) -> bool:
            return walled and super().is_walled(session)

        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/page/2":
                return redirect(f"http://localhost:{other.server_port}/page/3", status)
            return super().route(session, seen)

        def page(self, seen: Seen) -> Answer:
            return redirect("/page/2")

    with Plain() as other, Leading() as site:
        headers = {
            "Authorization": "Bearer spider-token",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        request = {"method": "POST", "body": "secret=spider-body", "headers": headers}
        asks = [{**each, **request} for each in asked(site, ["/page/1"])]
        result = crawl(site, asks, {"formdata": FORMDATA})
        sent = sent_to(other)
    assert result.names == ["page 3"]
    assert len(site.accepted) == walled
    assert [(seen.method, seen.path) for seen in other.seen] == [("GET", "/page/3")]
    assert not [secret for secret in secrets_of(site) if secret in sent]
    assert "content-type" not in other.seen[0].headers


def test_a_page_behind_its_captcha_may_be_on_another_host_that_learns_nothing_of_it(
    crawl: Callable[..., Crawl],
) -> None:
    class LeadsAway(Gate):
        def page(self, seen: Seen) -> Answer:
            return redirect(f"http://localhost:{other.server_port}{seen.path}", 308)

    with Plain() as other, LeadsAway() as site:
        cookies = {"mine": "spider-cookie"}
        headers = {"Authorization": "Bearer spider-token"}
        requests = [{"url": url, "headers": headers, "cookies": cookies} for url in site.pages(3)]
        result = crawl(site, requests, {"formdata": FORMDATA})
        sent = sent_to(other)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert len(site.accepted) == 1
    assert not [secret for secret in secrets_of(site) if secret in sent]


def test_the_service_s_token_and_the_images_go_to_the_service_alone(tmp_path: Path) -> None:
    with ReadingService(token="service-token") as service, Plain() as other, Gate(every=1) as site:
        there = {"Location": f"http://localhost:{other.server_port}/captcha"}
        service.script += [service.read, *(Said(b"", status, there) for status in STATUSES)]
        settings = {
            "CAPTCHA_SITES": {site.netloc: {"length": 4}},
            "CAPTCHA_DATASET": str(tmp_path / "captchas"),
            "CAPTCHA_MODEL": service.url,
            "CAPTCHA_SERVICE_TOKEN": service.token,
            "CONCURRENT_REQUESTS": 1,
        }
        result = Process(Job(site.pages(1 + len(STATUSES)), settings)).result()
        assert other.seen == []
        assert "service-token" not in sent_to(site)
    assert result.reasons == ["reader"] * len(STATUSES)
    assert len(result.items) == 1
    assert {seen.headers["authorization"] for seen in service.asked} == {"Bearer service-token"}

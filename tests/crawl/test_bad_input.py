"""Walls that cannot be passed: the errback gets the reason, which is counted; the crawl goes on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sites import Answer, Gate, Plain, Seen, Session, png, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl


class Broken(Gate):
    """The wall before page 1 is broken in some way; the other pages are free."""

    def __init__(self, form: str = "", image: Answer | None = None) -> None:
        super().__init__()
        self.form = form or (
            '<form class=gate method=post action="/verify">'
            "<img src=/captcha.png><input name=code></form>"
        )
        self.answered = image

    def route(self, session: Session, seen: Seen) -> Answer:
        if seen.path == "/page/1":
            return self.wall(session, "/page/1")
        if seen.path.startswith("/page/"):
            return self.page(seen)
        return super().route(session, seen)

    def wall_html(self, session: Session, back_to: str) -> str:
        return f"<title>Captcha</title>{self.form}"

    def image(self, session: Session, seen: Seen) -> Answer:
        return self.answered or super().image(session, seen)


def fails_by(
    crawl: Callable[..., Crawl], site: Gate, reason: str, attempts: int, **rule: Any
) -> Crawl:
    """Page 1 fails by that reason after so many attempts, and all other pages come."""
    result = crawl(site, 5, {"max_attempts": 3, **rule})
    assert result.names == ["page 2", "page 3", "page 4", "page 5"]
    (failure,) = result.failures
    assert failure["url"] == f"{site.url}/page/1"
    assert failure["error"] == "CaptchaUnsolved"
    assert failure["reason"] == reason
    assert failure["text"].startswith(f"{reason}: ")
    assert result.captcha[f"failed/{reason}"] == attempts
    assert result.captcha["unsolved"] == 1
    assert result.signalled("challenge_failed") == {failure["url"]: 1}
    assert "accepted" not in result.captcha
    return result


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Answer("gone", 404, "text/plain"), "image_status"),
        (Answer("wait", 503, "text/plain"), "image_status"),
        (Answer("", 200, "image/png"), "image_invalid"),
        (Answer("<p>no image", 200, "text/html"), "image_invalid"),
        (Answer(b"\x89PNG\r\n\x1a\n" + b"?" * 100, 200, "image/png"), "image_invalid"),
        (Answer(png(1)[:80], 200, "image/png"), "image_invalid"),
        (Answer(b"\x89PNG" + bytes(1 << 20), 200, "image/png"), "image_invalid"),
        (Answer(picture(2000, 1001), 200, "image/png"), "image_invalid"),
        (
            Answer("<svg/>", 200, "image/svg+xml"),
            "image_invalid",
        ),
    ],
    ids=["404", "503", "empty", "html", "torn", "cut", "over 1 MiB", "over 2 MP", "svg"],
)
def test_what_comes_is_no_usable_image(
    crawl: Callable[..., Crawl], image: Answer, reason: str
) -> None:
    with Broken(image=image) as site:
        result = fails_by(crawl, site, reason, 3)
    assert site.submissions == []
    assert "submitted" not in result.captcha


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("<form class=gate method=post action=/verify><input name=code></form>", "image_missing"),
        ("<form class=gate action=/verify><img src=/captcha.png></form>", "field_missing"),
        ("<p class=gate><img src=/captcha.png><input name=code></p>", "field_missing"),
        ("<p class=gate>Are you human?</p>", "image_missing"),
    ],
)
def test_a_part_of_the_captcha_is_missing(
    crawl: Callable[..., Crawl], form: str, reason: str
) -> None:
    with Broken(form) as site:
        fails_by(crawl, site, reason, 1, detect=".gate")
    assert site.requests("/captcha.png") == []
    assert site.submissions == []


def test_a_captcha_without_a_form_needs_the_submit_rule(crawl: Callable[..., Crawl]) -> None:
    with Broken("<p class=gate><img src=/captcha.png><input name=code></p>") as site:
        fails_by(crawl, site, "form_missing", 1, detect=".gate", field="code")
    assert site.submissions == []


def test_a_malformed_data_url_is_no_image(crawl: Callable[..., Crawl]) -> None:
    form = (
        '<form method=post action="/verify"><img src="data:image/png;base64,!">'
        "<input name=code></form>"
    )
    with Broken(form) as site:
        fails_by(crawl, site, "image_invalid", 3)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{other}/captcha.png", "image_host"),
        ("//{other_netloc}/captcha.png", "image_host"),
        ("http://user:pw@{netloc}/captcha.png", "image_host"),
        ("http://localhost:{port}/captcha.png", "image_host"),
        ("http://127.0.0.1:99999/captcha.png", "image_host"),
        ("file:///etc/hostname", "image_scheme"),
        ("ftp://{netloc}/captcha.png", "image_scheme"),
        ("s3://bucket/captcha.png", "image_scheme"),
        ("javascript:void(0)", "image_scheme"),
    ],
)
def test_an_image_is_not_fetched_from_anywhere_else(
    crawl: Callable[..., Crawl], address: str, reason: str
) -> None:
    with Plain() as other, Broken() as site:
        address = address.format(
            other=other.url, other_netloc=other.netloc, netloc=site.netloc, port=site.server_port
        )
        site.form = site.form.replace("/captcha.png", address)
        fails_by(crawl, site, reason, 1)
        assert other.seen == []
    assert site.requests("/captcha.png") == []
    assert site.submissions == []


def test_an_image_that_redirects_to_another_host_is_not_followed(
    crawl: Callable[..., Crawl],
) -> None:
    with Plain() as other, Broken(image=redirect(f"{other.url}/captcha.png")) as site:
        fails_by(crawl, site, "image_host", 1)
        assert other.seen == []


def test_an_image_from_a_host_that_the_rule_lists_is_fetched(crawl: Callable[..., Crawl]) -> None:
    class Images(Plain):
        def answer(self, seen: Seen) -> Answer:
            return Answer(png(1), content_type="image/png")

    class Foreign(Gate):
        def wall_html(self, session: Session, back_to: str) -> str:
            session.code_is_out = True
            html = super().wall_html(session, back_to)
            return html.replace("/captcha.png", f"{other.url}/captcha.png")

    headers = {"Authorization": "Basic YTpi"}
    with Images() as other, Foreign() as site:
        rule = {"image_hosts": [f"127.0.0.1:{other.server_port}"]}
        result = crawl(site, [{"url": site.pages(1)[0], "headers": headers}], rule)
    assert result.names == ["page 1"]
    assert len(other.seen) == 1
    assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("{other}/verify", "form_host"),
        ("//{other_netloc}/verify", "form_host"),
        ("http://user:pw@{netloc}/verify", "form_host"),
        ("ftp://{netloc}/verify", "form_scheme"),
        ("file:///verify", "form_scheme"),
        ("javascript:send()", "form_scheme"),
        ("mailto:a@b.example", "form_scheme"),
    ],
)
def test_an_answer_is_not_sent_anywhere_else(
    crawl: Callable[..., Crawl], action: str, reason: str
) -> None:
    with Plain() as other, Broken() as site:
        action = action.format(other=other.url, other_netloc=other.netloc, netloc=site.netloc)
        site.form = site.form.replace("/verify", action)
        result = fails_by(crawl, site, reason, 1)
        assert other.seen == []
    assert site.submissions == []
    assert "submitted" not in result.captcha


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_submission_that_redirects_to_another_host_is_not_followed(
    crawl: Callable[..., Crawl], status: int
) -> None:
    class Leaking(Broken):
        def verify(self, session: Session, seen: Seen) -> Answer:
            return redirect(f"{other.url}/verify", status)

    with Plain() as other, Leaking() as site:
        fails_by(crawl, site, "redirect_host", 1)
        assert other.seen == []
    assert len(site.submissions) == 1


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (307, "POST"), (308, "POST")])
def test_a_submission_is_redirected_within_the_host_as_browsers_do(
    crawl: Callable[..., Crawl], status: int, method: str
) -> None:
    class Moved(Gate):
        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path == "/verify":
                return redirect(f"/moved/verify?{seen.body.decode()}", status)
            return super().route(session, seen)

    with Moved() as site:
        result = crawl(site, 1)
    assert result.names == ["page 1"]
    (moved,) = site.requests("/moved/verify")
    assert moved.method == method
    assert bool(moved.body) is (method == "POST")


def test_redirects_without_an_end_are_given_up(crawl: Callable[..., Crawl]) -> None:
    class Endless(Broken):
        def verify(self, session: Session, seen: Seen) -> Answer:
            return redirect("/verify")

    with Endless() as site:
        fails_by(crawl, site, "protocol", 2, max_attempts=2)
    assert len(site.submissions) < 60


def test_an_image_that_never_comes_is_a_failed_attempt(crawl: Callable[..., Crawl]) -> None:
    class Breaking(Broken):
        def image(self, session: Session, seen: Seen) -> Answer:
            raise ConnectionResetError

    with Breaking() as site:
        fails_by(crawl, site, "image_download", 3)


def test_a_connection_that_breaks_is_a_failed_attempt(crawl: Callable[..., Crawl]) -> None:
    class Breaking(Broken):
        def verify(self, session: Session, seen: Seen) -> Answer:
            raise ConnectionResetError

    with Breaking() as site:
        fails_by(crawl, site, "download", 3)
    assert len(site.submissions) == 3


def test_a_form_that_cannot_be_encoded_says_so(crawl: Callable[..., Crawl]) -> None:
    form = '<form method=dialog action="/verify"><img src=/captcha.png><input name=code></form>'
    with Broken(form) as site:
        fails_by(crawl, site, "form_invalid", 1)
    assert site.submissions == []

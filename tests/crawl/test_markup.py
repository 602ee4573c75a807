"""Image, form and field are found in whatever markup the wall is written in."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from sites import Answer, Gate, Seen, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crawling import Crawl

HIDDEN = '<input type="hidden" name="csrf" value="{sid}"><input type=hidden name=next value={next}>'


class Written(Gate):
    """A gate whose captcha page is given as a template."""

    def __init__(self, template: str, expected: Mapping[str, str]) -> None:
        super().__init__(accept=2)
        self.template = template
        self.expected = expected
        self.fields: list[dict[str, str]] = []

    def wall_html(self, session: Session, back_to: str) -> str:
        data = (
            base64.b64encode(self.new_image(session)).decode() if "{data}" in self.template else ""
        )
        hidden = HIDDEN.format(sid=session.sid, next=back_to)
        return self.template.format(hidden=hidden, site=self.url, data=data)

    def route(self, session: Session, seen: Seen) -> Answer:
        if "code" in seen.form and seen.path.startswith("/page/"):  # a form without an action
            return self.verify(session, seen)
        return super().route(session, seen)

    def verify(self, session: Session, seen: Seen) -> Answer:
        self.fields.append({**seen.query, **seen.form})
        return super().verify(session, seen)


MARKUP: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "an image relative to the page": (
        "<form method=post action=/verify>{hidden}<img src=captcha.png id=captcha>"
        "<input name=code></form>",
        {},
        {},
    ),
    "an absolute image and action": (
        '<form method=post action="{site}/verify">{hidden}<img src="{site}/captcha.png">'
        "<input name=code id=verify-code></form>",
        {},
        {},
    ),
    "a data: image": (
        "<p>Captcha<form method=post action=/verify>{hidden}"
        '<img src="data:image/png;base64,{data}"><input name=code></form>',
        {},
        {},
    ),
    "upper case, unquoted, no action": (
        "<HTML><BODY><H1>SECURITY CHECK</H1><FORM METHOD=POST>{hidden}<IMG SRC=/captcha.png>"
        "<INPUT NAME=code></FORM>",
        {},
        {},
    ),
    "base href": (
        '<head><base href="/deep/er/"></head><form method=post action="verify">{hidden}'
        '<img src="captcha.png"><input name=code></form>',
        {},
        {},
    ),
    "a form that is sent by GET": (
        "<form action=/verify?old=1>{hidden}<img src=/captcha.png><input name=code></form>",
        {},
        {},
    ),
    "Chinese labels": (
        "<form method=post action=/verify>{hidden}<label>请输入验证码</label>"
        '<img src="/i/captcha.png"><input name=code></form>',
        {},
        {},
    ),
    "the captcha among other forms": (
        "<form action=/search><img src=/logo.png><input name=q><button>Go</button></form>"
        "<form action=/news method=post><input type=email name=email></form>"
        "<form method=post action=/verify>{hidden}<img src=/captcha.png><input name=code></form>"
        "<form action=/lang><select name=l><option>en</select></form>",
        {},
        {},
    ),
    "a honeypot and a logo in the form": (
        "<form method=post action=/verify>{hidden}<img src=/logo.png class=logo>"
        '<div><input name=website style="display: none"></div>'
        "<img src=/captcha.png><input name=code><input type=submit name=go value=OK></form>",
        {},
        {"website": "", "go": "OK"},
    ),
    "a table": (
        "<table><form method=post action=/verify><tr><td>{hidden}<img src=/captcha.png>"
        "<td><input name=code></tr></form></table>",
        {},
        {},
    ),
    "a login, with formdata": (
        "<form method=post action=/verify>{hidden}<input name=user><input type=password name=pw>"
        "<img src=/captcha.png><input name=code></form>",
        {"formdata": {"user": "ada", "pw": "pässword"}},
        {"user": "ada", "pw": "pässword"},
    ),
    "nothing that tells, but detect, form, image and field": (
        "<div class=gate><form action=/other><img src=/a.png><input name=x></form>"
        "<p><img src=/p.png><img class=it src=/captcha.png></p>"
        "<form id=f method=post action=/verify>{hidden}<input name=x><input name=code></form>",
        {"detect": "div.gate", "form": "#f", "image": "img.it", "field": "code"},
        {"x": ""},
    ),
    "a page as large as they come": (
        "<form method=post action=/verify>{hidden}<img src=/captcha.png><input name=code></form>"
        + "<p>lorem ipsum</p>" * 80_000,
        {},
        {},
    ),
}


@pytest.mark.parametrize("case", MARKUP)
def test_a_wall_is_passed(crawl: Callable[..., Crawl], case: str) -> None:
    template, rule, expected = MARKUP[case]
    with Written(template, expected) as site:
        result = crawl(site, 2, rule)
    assert result.names == ["page 1", "page 2"]
    assert len(site.rejected) == len(site.accepted) == 1
    assert site.strangers == 0
    for fields in site.fields:
        assert fields.keys() == {"csrf", "next", "code", *expected}
        assert expected.items() <= fields.items()

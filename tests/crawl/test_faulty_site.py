"""A site that fails now and then: every page ends once, and no failure is taken for a yes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sites import Answer, Gate, Seen, Session, redirect

from scrapy_captcha.dataset import Dataset, confirmed_pairs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from crawling import Crawl


def small(**options: object) -> faults.argparse.Namespace:
    given = {"every": 4, "faults": 0.2, "wrong": 0.1, "redirects": False, "timeout": 1.0}
    given |= {"cookiejars": 0, "bare": False, "seed": 1} | options
    return faults.argparse.Namespace(**given)


@pytest.mark.parametrize(
    ("concurrency", "pages", "options"),
    [(1, 40, {}), (16, 60, {"redirects": True, "every": 2}), (128, 120, {"cookiejars": 5})],
)
def test_every_page_of_a_failing_site_ends_once(
    concurrency: int, pages: int, options: dict[str, object]
) -> None:
    result = faults.measure(concurrency, small(pages=pages, **options))
    assert not faults.is_bad(result), result
    assert sum(v for k, v in result["site"].items() if k.startswith("fault/")) > pages / 10
    assert result["stats"]["captcha/accepted"] > 0


class Mistyped(Gate):
    """Its walls come under another content type."""

    def __init__(self, content_type: str, **kwargs: bool) -> None:
        super().__init__(accept=2, **kwargs)
        self.content_type = content_type

    def wall(self, session: Session, back_to: str) -> Answer:
        answer = super().wall(session, back_to)
        return Answer(answer.body, answer.status, self.content_type)


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "text/plain", ""])
def test_a_wall_under_another_content_type_is_a_wall(
    crawl: Callable[..., Crawl], content_type: str
) -> None:
    with Mistyped(content_type) as site:
        result = crawl(site, 3)
    assert result.names == ["page 1", "page 2", "page 3"]
    assert result.captcha["rejected"] == result.captcha["accepted"] == 1


@pytest.mark.parametrize("body", ["", " \r\n"])
def test_an_empty_page_after_an_answer_is_no_yes(
    crawl: Callable[..., Crawl], tmp_path: Path, body: str
) -> None:
    class Faltering(Gate):
        """Sends who was rejected to the page, where there is nothing the first two times."""

        def refused(self, session: Session, seen: Seen) -> Answer:
            return redirect(self.field(seen, "next"))

        def route(self, session: Session, seen: Seen) -> Answer:
            if seen.path.startswith("/page/") and len(self.submissions) == 1:
                return Answer(body)
            return super().route(session, seen)

    with Faltering(accept=0) as site:
        result = crawl(site, 1, {"max_attempts": 3})
    assert len(result.items) == 1  # what came is what the spider gets
    assert len(site.submissions) == 1
    assert "accepted" not in result.captcha
    folder = Dataset(tmp_path / "captchas").site(site.netloc).path
    assert confirmed_pairs(folder) == ([], [])

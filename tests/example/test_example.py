from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2] / "example_project"


class Visitor:
    """A browser's part: one cookie jar, pages as text."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))

    def fetch(self, path: str, form: dict[str, str] | None = None) -> bytes:
        data = urlencode(form).encode() if form is not None else None
        with self.opener.open(urljoin(self.url, path), data, timeout=10) as response:
            return bytes(response.read())

    def get(self, path: str) -> str:
        return self.fetch(path).decode()

    def post(self, path: str, **form: str) -> str:
        return self.fetch(path, form).decode()

    def token(self) -> str:
        found = re.search(r'name="token" value="(\w+)"', self.get("/search"))
        assert found
        return found[1]


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    """A visitor of a shop whose images say code1, code2, ... in turn, drawn in upper case."""
    monkeypatch.syspath_prepend(str(PROJECT))
    from captcha_site import Shop  # noqa: PLC0415

    codes = (f"CODE{number}" for number in range(1, 100))
    with Shop(new_code=lambda: next(codes)) as shop:
        thread = threading.Thread(target=shop.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Visitor(shop.url)
        shop.shutdown()
        thread.join()


def is_wall(page: str) -> bool:
    return 'action="/check"' in page


def test_home_page_is_free(visitor: Visitor) -> None:
    assert not is_wall(visitor.get("/"))


@pytest.mark.parametrize("path", ["/books", "/books?page=2", "/book/1", "/book/20"])
def test_pages_with_books_are_behind_the_wall(visitor: Visitor, path: str) -> None:
    page = visitor.get(path)

    assert is_wall(page)
    assert f'value="{path}"' in page


def test_captcha_is_an_image_of_160_by_60(visitor: Visitor) -> None:
    with Image.open(io.BytesIO(visitor.fetch("/captcha.png"))) as image:
        assert (image.format, image.size) == ("PNG", (160, 60))


def test_right_answer_in_any_case_opens_the_page_and_the_session(visitor: Visitor) -> None:
    visitor.fetch("/captcha.png")

    assert "Amber Harbour" in visitor.post("/check", code="code1", next="/books")
    assert "Winter Almanac" in visitor.get("/book/20")
    assert is_wall(Visitor(visitor.url).get("/books"))


def test_wrong_answer_is_rejected(visitor: Visitor) -> None:
    visitor.fetch("/captcha.png")

    assert is_wall(visitor.post("/check", code="wrong", next="/books"))
    assert is_wall(visitor.get("/books"))


def test_an_answer_without_an_image_is_rejected(visitor: Visitor) -> None:
    assert is_wall(visitor.post("/check", next="/books"))
    assert is_wall(visitor.post("/check", code="", next="/books"))


def test_a_submission_uses_the_code_up(visitor: Visitor) -> None:
    visitor.fetch("/captcha.png")
    visitor.post("/check", code="wrong", next="/books")

    assert is_wall(visitor.post("/check", code="code1", next="/books"))


def test_only_the_last_image_counts(visitor: Visitor) -> None:
    visitor.fetch("/captcha.png")
    visitor.fetch("/captcha.png")
    assert is_wall(visitor.post("/check", code="code1", next="/books"))

    visitor.fetch("/captcha.png")
    assert not is_wall(visitor.post("/check", code="code3", next="/books"))


def test_check_leads_to_no_other_site(visitor: Visitor) -> None:
    visitor.fetch("/captcha.png")

    with pytest.raises(HTTPError) as caught:
        visitor.post("/check", code="code1", next="//other.example/books")

    with caught.value as answer:
        assert answer.url == urljoin(visitor.url, "/other.example/books")
        assert answer.code == 404


def test_search_needs_a_captcha_each_time(visitor: Visitor) -> None:
    token = visitor.token()
    visitor.fetch("/captcha.png")
    assert "6.80 EUR" in visitor.post("/search", token=token, name="Moss", code="code1")

    rejected = visitor.post("/search", token=visitor.token(), name="Moss", code="code1")
    assert "not the characters" in rejected
    assert "EUR" not in rejected


def test_search_form_works_once(visitor: Visitor) -> None:
    token = visitor.token()
    visitor.fetch("/captcha.png")
    visitor.post("/search", token=token, name="Moss", code="wrong")
    visitor.fetch("/captcha.png")

    with pytest.raises(HTTPError) as caught:
        visitor.post("/search", token=token, name="Moss", code="code2")

    with caught.value as answer:
        assert answer.code == 409


def test_example_crawls_the_whole_shop(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, PROJECT / "run.py", "--dataset", tmp_path],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "20 of 20 items" in run.stdout
    assert "5 of 5 items" in run.stdout
    assert re.search(r"Winter Almanac +21\.00", run.stdout)
    gate, search = re.findall(r"captchas: .* accepted (\d+), .* stored (\d+)", run.stdout)
    assert gate == ("1", gate[1])
    assert search == ("5", search[1])
    confirmed = list(tmp_path.glob("127.0.0.1/confirmed/*.png"))
    assert len(confirmed) == 6


def test_example_without_the_component_gets_no_book(
    tmp_path: Path, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")  # no network
    feed = tmp_path / "items.json"
    settings = ["-s", "ADDONS={}", "-s", f"SHOP_URL={visitor.url}"]
    command = [sys.executable, "-m", "scrapy", "crawl", "books", "-O", feed, *settings]

    subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=60, check=True)

    assert json.loads(feed.read_text() or "[]") == []

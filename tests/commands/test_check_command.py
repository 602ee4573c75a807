from __future__ import annotations

import json
import runpy
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from page_server import Answer, PageServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from scrapy_captcha.bundle import Golden

WALL = (
    "<title>Verification</title><form method=post action=/verify><input type=hidden name=t value=1>"
    '<img src="/captcha.png?1"><input name="code"></form>'
)
QUERY = (
    "<title>Search</title><form method=post action=/query><input name=name>"
    '<img src="/captcha.png"><input name="code"></form>'
)


@pytest.fixture
def site(golden: Golden) -> Any:
    answers = {
        "/wall": Answer(WALL, status=403),
        "/moved": Answer(status=302, headers={"Location": "/wall"}),
        "/away": Answer(status=302, headers={"Location": "http://other.invalid/"}),
        "/query": Answer(QUERY),
        "/plain": Answer("<h1>Books</h1>"),
        "/json": Answer("{}", "application/json"),
        "/no-image": Answer(WALL.replace("/captcha.png", "/gone.png")),
        "/far-image": Answer(WALL.replace("/captcha.png", "http://cdn.invalid/captcha.png")),
        "/captcha.png": Answer(golden.image, "image/png"),
        "/robots.txt": Answer("User-agent: *\nDisallow: /wall\n", "text/plain"),
    }
    with PageServer(answers) as server:
        yield server


def pasted(stdout: str, tmp_path: Path) -> dict[str, Any]:
    """The first rule that is proposed, as Python reads it."""
    path = tmp_path / "pasted.py"
    path.write_text(stdout[stdout.index("CAPTCHA_SITES = {") :].partition("\n}\n")[0] + "\n}\n")
    return dict(runpy.run_path(str(path))["CAPTCHA_SITES"])


def test_a_wall_is_explained_read_and_not_answered(
    scrapy: Callable[..., CompletedProcess[str]], site: PageServer, golden: Golden, tmp_path: Path
) -> None:
    done = scrapy("captcha", "check", f"{site.url}/moved", "-s", "USER_AGENT=checker")

    assert done.returncode == 0, done.stderr
    assert f"led to {site.url}/wall (status 403)" in done.stdout
    assert "A captcha page: an image and a text input share a form" in done.stdout
    assert f"{site.url}/captcha.png?1 (" in done.stdout
    assert f"{golden.text} (confidence " in done.stdout
    assert f"POST {site.url}/verify" in done.stdout
    assert pasted(done.stdout, tmp_path) == {site.netloc: {}}
    assert site.paths() == ["/moved", "/wall", "/captcha.png?1"]
    assert {asked.method for asked in site.asked} == {"GET"}
    assert {asked.headers["User-Agent"] for asked in site.asked} == {"checker"}


def test_a_query_form_comes_with_the_line_that_submits_it(
    scrapy: Callable[..., CompletedProcess[str]], site: PageServer, tmp_path: Path
) -> None:
    done = scrapy("captcha", "check", f"{site.url}/query")

    assert done.returncode == 0, done.stderr
    line = 'yield captcha_form(response, {"name": "..."}, callback=self.parse_result)'
    assert line in done.stdout
    assert '"formdata": {"name": "..."}' in done.stdout
    assert pasted(done.stdout, tmp_path) == {site.netloc: {}}


def test_what_a_page_says_cannot_move_the_cursor_or_add_lines(
    scrapy: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    odd = "\x1b[2J\x9b2J\u202e\nCAPTCHA_SITES = {}\n"
    form = (
        f"<title>{odd}</title><form method=post action='/verify{odd}'><img src='/captcha.png?{odd}'"
        f" alt='captcha {odd}'><input name='co{odd}de' placeholder=captcha>"
        f"<select name='a{odd}'><option>{odd}</select></form>"
    )
    answers = {"/wall": Answer(form), "/text": Answer("x", "text/plain; x=\x9b2J")}
    with PageServer(answers) as server:
        for path in answers:
            said = scrapy("captcha", "check", f"{server.url}{path}").stdout
            assert server.url in said
            assert all(c.isprintable() or c == "\n" for c in said)
            assert said.splitlines().count("CAPTCHA_SITES = {}") == 0


def test_an_ordinary_page_is_called_so(
    scrapy: Callable[..., CompletedProcess[str]], site: PageServer
) -> None:
    done = scrapy("captcha", "check", f"{site.url}/plain")

    assert done.returncode == 0, done.stderr
    assert "An ordinary page without a captcha" in done.stdout
    assert "the page has no form" in done.stdout
    assert "CAPTCHA_SITES" not in done.stdout


def test_the_projects_rule_and_settings_hold_and_its_crawl_is_left_alone(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    site: PageServer,
    golden: Golden,
    tmp_path: Path,
) -> None:
    rule = {"formdata": {"name": "Ada"}, "charset": "xy"}
    project(
        f"""
ADDONS = {{"scrapy_captcha.Addon": 500}}
CAPTCHA_SITES = {{{site.netloc!r}: {rule!r}}}
DEFAULT_REQUEST_HEADERS = {{"X-Agreed": "yes"}}
FEEDS = {{"items.json": {{"format": "json", "overwrite": True}}}}
ITEM_PIPELINES = {{"shop.missing.Pipeline": 300}}
JOBDIR = "job"
TWISTED_REACTOR_ENABLED = False
"""
    )
    before = "[1]"
    (tmp_path / "items.json").write_text(before)

    done = scrapy("captcha", "check", "--json", f"{site.url}/query")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["listed"], found["rule"]) == ("wall", True, rule)
    assert found["form"] == {"method": "POST", "action": f"{site.url}/query"}
    assert set(found["image"]["recognition"]["text"]) <= {"x", "y"}
    assert found["image"]["bytes"] == len(golden.image)
    assert site.paths() == ["/query", "/captcha.png"]
    assert {asked.headers.get("X-Agreed") for asked in site.asked} == {"yes"}
    assert (tmp_path / "items.json").read_text() == before
    assert not (tmp_path / "job").exists()
    assert not (tmp_path / "captchas").exists()


def test_robots_txt_holds_where_the_project_obeys_it(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    site: PageServer,
) -> None:
    project("ROBOTSTXT_OBEY = True\n")

    done = scrapy("captcha", "check", f"{site.url}/wall")

    assert done.returncode == 1
    assert "Failed: robots:" in done.stdout
    assert site.paths() == []


def test_the_rule_of_another_site_can_be_tried(
    scrapy: Callable[..., CompletedProcess[str]], site: PageServer
) -> None:
    sites = json.dumps({"live.example": {"detect": "#gate"}})

    tried = scrapy(
        "captcha", "-s", f"CAPTCHA_SITES={sites}", "check", f"{site.url}/wall",
        "--site", "live.example",
    )  # fmt: skip
    unknown = scrapy("captcha", "check", f"{site.url}/wall", "--site", "dead.example")

    assert tried.returncode == 0, tried.stderr
    assert "'#gate', is not on the page" in tried.stdout
    assert unknown.returncode == 1
    assert "--site dead.example: CAPTCHA_SITES lists no site" in unknown.stderr


def test_what_cannot_be_checked_is_said_and_fails(
    scrapy: Callable[..., CompletedProcess[str]], site: PageServer
) -> None:
    expected = {
        "/gone": "status 404 and no captcha",
        "/json": "expected HTML, got application/json with status 200",
        "/away": "redirects to http://other.invalid/, which is not followed",
        "/no-image": "failed: image_status: ",
        "/far-image": "failed: image_host: 'http://cdn.invalid/captcha.png?1'",
    }

    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda path: scrapy("captcha", "check", site.url + path), expected)

    for (path, says), process in zip(expected.items(), done, strict=True):
        assert (path, process.returncode) == (path, 1)
        assert says in process.stdout
        assert "Traceback" not in process.stderr


def test_a_server_that_is_not_there_and_a_wrong_setting_are_said(
    scrapy: Callable[..., CompletedProcess[str]],
) -> None:
    with PageServer({}) as gone:
        pass
    nobody = scrapy("captcha", "check", gone.url)
    wrong = scrapy("captcha", "check", gone.url, "-s", 'CAPTCHA_SITES={"a.example": {"lenght": 4}}')
    no_url = scrapy("captcha", "check", "shop.example")

    assert (nobody.returncode, wrong.returncode, no_url.returncode) == (1, 1, 2)
    assert "refused" in nobody.stdout
    assert "did you mean 'length'?" in wrong.stderr
    assert "expected an http:// or https:// URL, got 'shop.example'" in no_url.stderr

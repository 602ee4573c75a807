"""How long a page can take that was made to take long: detection, and the verdict on an answer.

    python benchmarks/hostile_pages.py [--kib 1024] [--repeat 5] [--limit 100] [--page NAME]

Each page is judged under several rules, with nothing remembered from one time to the next: under
none, with a ``detect``, with selectors for image and form, with selectors that count, as the page
of a query form, and as the answer to a submission, by an ``accepted`` and a ``rejected`` selector.
Prints a line of JSON for each page: milliseconds of processor time by rule, the median of so many
times, and under which rules it was taken for a wall; then one for the slowest. The exit code is 1
if that is above --limit.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any

from scrapy.http import HtmlResponse
from scrapy.settings import Settings as ScrapySettings

from scrapy_captcha.challenge import find, locate
from scrapy_captcha.config import Settings
from scrapy_captcha.tasks import _by_rules

if TYPE_CHECKING:
    from scrapy_captcha.config import SiteRule

URL = "http://shop.example/page"
CAPTCHA = b"<form action=/go method=post><img src=/captcha.png><input name=code></form>"
NESTED = b"<div class=gate>" * 200
#: What is repeated to the size that was asked for, and the bytes before and after.
REPEATED: dict[str, tuple[bytes, bytes, bytes]] = {
    "ordinary": (
        b"",
        b'<div class="item"><a href="/p/1">One <b>thing</b></a><p>at least</p></div>\n',
        CAPTCHA,
    ),
    "empty forms": (b"", b"<form></form>", CAPTCHA),
    "captcha forms": (b"", CAPTCHA, b""),
    "forms with two fields": (
        b"",
        b"<form><img src=/captcha.png><input name=code><input name=b></form>",
        b"",
    ),
    "open forms": (b"", b"<form>", CAPTCHA),
    "nested forms": (b"", b"<form><div><input name=a value=1><img src=a>", CAPTCHA),
    "inputs": (b"<form>", b"<input name=a>", CAPTCHA),
    "images and inputs": (b"<form>", b"<img src=/captcha.png><input name=code>", b"</form>"),
    "hidden fields": (CAPTCHA[:-7], b"<input type=hidden name=a value=1>", b"</form>"),
    "options": (CAPTCHA[:-7] + b"<select name=a>", b"<option>1", b"</form>"),
    "deep": (b"", b"<div>", CAPTCHA),
    "deep links": (b"", b"<a>", CAPTCHA),
    "deep tables": (b"", b"<table><tr><td>", CAPTCHA),
    "deep, then ends of nothing": (CAPTCHA + b"<div>" * 2_000, b"</b>", b""),
    "deep, then ends of paragraphs": (CAPTCHA + b"<div>" * 250, b"</p>", b""),
    "deep, then inputs": (CAPTCHA + NESTED, b"<input class=x name=x>", b""),
    "deep, then forms": (NESTED, b"<form class=gate><input class=x></form>", CAPTCHA),
    "paragraphs": (CAPTCHA, b"<p>", b""),
    "siblings": (CAPTCHA, b"<form class=gate></form>", b""),
    "tags in a name": (CAPTCHA + b"<a" * 39_000, b"x", b""),
    "tags in a value": (CAPTCHA + b"<a x=" + b"<a" * 39_000, b"x", b""),
    "tags without an end": (CAPTCHA, b"<a" + b"/" * 24, b""),
    "comments": (CAPTCHA, b"<!---->", b""),
    "an open comment": (CAPTCHA + b"<form>", b"<!--", b""),
    "an endless comment": (CAPTCHA + b"<!--", b"-", b""),
    "less-than signs": (CAPTCHA, b"<", b""),
    "broken declarations": (CAPTCHA, b"<!", b""),
    "broken ends": (CAPTCHA, b"</", b""),
    "entities": (b"<form>", b"&amp;", CAPTCHA),
    "broken entities": (b"<form>", b"&a", CAPTCHA),
    "titles": (b"", b"<title>a</title><h1>b</h1>", CAPTCHA),
    "nested headings": (b"", b"<h1>x<h2>y", CAPTCHA),
    "words": (b"<form>", b"type the a a ", CAPTCHA[5:]),
    "tags with many attributes": (
        CAPTCHA,
        b"<p " + b" ".join(b"a%d" % n for n in range(60)) + b">",
        b"",
    ),
    "an image of that size": (
        b"<form><img alt=captcha src='data:image/png;base64,",
        b"A",
        b"'><input name=code></form>",
    ),
    "a name of that size": (b"<form><img src=/captcha.png><input name='code", b"a", b"'></form>"),
    "a class of that size": (
        b"<form><img class='",
        b"verif ",
        b"' src=/a.png><input name=code></form>",
    ),
    "a style of that size": (
        b"<form><img style='display",
        b" ",
        b"' src=/captcha.png><input name=code></form>",
    ),
    "an action of that size": (
        b"<form action='/",
        b"../",
        b"'><img src=/captcha.png><input name=code></form>",
    ),
    "comments in a script": (b"<script>", b"<!--", b"</script>" + CAPTCHA),
    "scripts in a script": (b"<script><!--", b"<script -", b"--></script>" + CAPTCHA),
    "scripts": (b"<script>", b"<form>", b"</script>" + CAPTCHA),
    "a textarea": (b"<form><textarea>", b"<form><img><input>", b"</textarea></form>" + CAPTCHA),
    "drawings": (CAPTCHA + b"<svg>", b"<g><path d='M0 0'>", b""),
    "NUL bytes": (b"<form>", b"\0", CAPTCHA[5:]),
    "NUL bytes in tags": (CAPTCHA, b"<fo\0rm><in\0put>", b""),
    "no encoding, accents": (CAPTCHA, b"\xe9\xe8 abc", b""),
    "no encoding, Chinese": (CAPTCHA, "中文网页\n".encode("gbk"), b""),
    "no encoding, one byte": (CAPTCHA, b"\x80", b""),
    "a codec, punycode": (b"<meta charset=punycode>" + CAPTCHA, b"abc-", b""),
    "a codec, unicode-escape": (b"<meta charset=unicode_escape>" + CAPTCHA, b"\\N{BULLET}", b""),
    "a codec, hz": (b"<meta charset=hz>" + CAPTCHA, b"~{", b""),
    "a codec, iso-2022-jp": (b"<meta charset=iso-2022-jp>" + CAPTCHA, b"\x1b$B!!", b""),
    "a codec, hex": (b"<meta charset=hex>" + CAPTCHA, b"a", b""),
    "XML": (b"<?xml version='1.0'?><html>", b"<form/>", CAPTCHA),
}
RULES: dict[str, dict[str, Any]] = {
    "no rule": {},
    "detect": {"detect": ".gate .gate input.y"},
    "selectors": {"image": "div div img.y", "form": "div div form"},
    "counting": {"detect": "form:has(img.y) input:nth-child(2)"},
    "query": {},
    "answer": {"accepted": ".gate .gate td.y", "rejected": "div div div p.y"},
}


@cache
def noise(size: int) -> bytes:
    """Random bytes, the same each time."""
    return random.Random(1).randbytes(size)


def made(name: str, size: int) -> bytes:
    """A page of about that many bytes."""
    if name == "one tag with many attributes":
        count = size // 7
        return CAPTCHA + b"<p " + b" ".join(b"a%d" % number for number in range(count)) + b">"
    if name == "hidden in values":
        value = b"='<p " + b" ".join(b"a%d" % number for number in range(60)) + b">' "
        return CAPTCHA + b"<p " + b"".join(b"b%d%b" % (n, value) for n in range(size // 250)) + b">"
    if name.startswith("noise"):
        head = {"noise": b"", "noise, UTF-8": b"<meta charset=utf-8>"}
        return head.get(name, b"<meta charset=gb18030>") + CAPTCHA + noise(size)
    before, unit, after = REPEATED[name]
    times = max(0, size - len(before) - len(after)) // len(unit)
    return before + unit * times + after


PAGES = (
    *REPEATED,
    *("one tag with many attributes", "hidden in values"),
    *("noise", "noise, UTF-8", "noise, GB 18030"),
)


def rule_of(keys: dict[str, Any]) -> SiteRule:
    """A rule, as a crawl would read it."""
    settings = ScrapySettings({"CAPTCHA_SITES": {"shop.example": keys}})
    return Settings.from_settings(settings).sites["shop.example"]


def judge(name: str, rule: SiteRule, page: HtmlResponse) -> bool:
    """What a crawl does with a page; whether it is a wall."""
    if name == "query":
        return locate(page, rule, None, {"name"}) is not None
    if name == "answer":
        _by_rules(rule, page)
    return find(page, rule) is not None


def measure(body: bytes, rules: dict[str, SiteRule], repeat: int) -> dict[str, Any]:
    """Median milliseconds under each rule, and under which ones it is a wall."""
    took: dict[str, float] = {}
    walls = []
    for name, rule in rules.items():
        times = []
        for _ in range(repeat):
            page = HtmlResponse(URL, body=body, headers={"Content-Type": "text/html"})
            started = time.process_time()
            wall = judge(name, rule, page)
            times.append(1000 * (time.process_time() - started))
        took[name] = round(median(times), 1)
        if wall:
            walls.append(name)
    return {"milliseconds": took, "wall": walls}


def main() -> int:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kib", type=int, default=1024, help="size of the pages")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--limit", type=float, help="most milliseconds that a page may take")
    parser.add_argument("--page", action="append", choices=PAGES, metavar="NAME", help="only these")
    options = parser.parse_args()
    rules = {name: rule_of(keys) for name, keys in RULES.items()}
    measure(CAPTCHA + b"\xe9", rules, 1)  # what is imported and compiled once
    slowest = {"milliseconds": 0.0}
    for name in options.page or PAGES:
        body = made(name, options.kib << 10)
        found = {"page": name, "bytes": len(body), **measure(body, rules, options.repeat)}
        print(json.dumps(found), flush=True)
        for rule, took in found["milliseconds"].items():
            if took > slowest["milliseconds"]:
                slowest = {"slowest": name, "rule": rule, "milliseconds": took}
    print(json.dumps(slowest))
    return int(options.limit is not None and slowest["milliseconds"] > options.limit)


if __name__ == "__main__":
    sys.exit(main())

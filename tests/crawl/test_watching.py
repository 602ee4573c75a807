"""What ``scrapy captcha stats`` says after a crawl is what the site has seen."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sites import Gate

from scrapy_captcha.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl


def stats(tmp_path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "scrapy", "captcha", "stats", "captchas", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_the_figures_after_a_crawl_are_those_of_the_site(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    with Gate(accept=3, every=4) as site:
        crawl(site, 12)

    shown: dict[str, Any] = json.loads(stats(tmp_path, "--json", "--html", "page.html"))["sites"][0]

    assert shown["site"] == site.netloc
    assert shown["answers"]["judged"] == len(site.accepted) + len(site.rejected) == 9
    assert shown["answers"]["accepted"] == len(site.accepted) == 3
    (model,) = shown["models"]
    assert open_bundle("alnum4").hash in model["model"]  # the default reads with two bundles
    assert model["judged"] == 9
    assert shown["images"]["labelled"] == 3
    assert shown["images"]["rejected"] == 6
    assert shown["notes"] == shown["unreadable"] == []
    assert '<path class="s0"' in (tmp_path / "page.html").read_text(encoding="utf-8")
    listed = stats(tmp_path, "--uncertain", "6").splitlines()
    rejected = {image for image, _ in site.rejected}
    assert {(tmp_path / path).read_bytes() for path in listed} == rejected

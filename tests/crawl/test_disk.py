"""A disk that fills up, breaks or cannot be read stops the harvesting, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sites import Gate

from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.naming import site_folder
from scrapy_captcha.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crawling import Crawl

#: Nothing has to be said when these fail: they only tidy up.
TIDYING = {"unlink", "ftruncate"}
PAGES = 6


def crawl_with(
    crawl: Callable[..., Crawl], dataset: Path, code: int, call: int, **how: bool
) -> list[str]:
    """Crawl with a disk that fails at a call; the calls that failed. Asserts what is promised."""
    disk = {"folder": str(dataset), "code": code, "call": call, **how}
    with Gate(accept=2, every=3) as site:
        result = crawl(
            site,
            PAGES,
            CAPTCHA_DATASET=str(dataset),
            EXTENSIONS={"disk_extension.Extension": 0},
            FAILING_DISK=disk,
        )
    failed: list[str] = result.stats["disk/failed"]
    assert_crawled_on(result, loud=bool(set(failed) - TIDYING))
    assert_sound(dataset / site_folder(site.netloc), result)
    return failed


def assert_crawled_on(result: Crawl, *, loud: bool) -> None:
    assert result.names == sorted(f"page {number}" for number in range(1, PAGES + 1))
    assert result.failures == []
    assert result.captcha["accepted"] == result.captcha["rejected"] == 2
    assert result.captcha.get("failed/storage", 0) == loud
    errors = [line for line in result.log if line.startswith("ERROR")]
    assert len(errors) == loud
    if loud:
        assert "Nothing more of" in errors[0]
        assert "CAPTCHA_DATASET" in errors[0]


def assert_sound(site_dir: Path, result: Crawl) -> None:
    """What was counted as stored is there, and nothing is torn."""
    if not site_dir.exists():
        assert "stored" not in result.captcha
        return
    report = verify(site_dir)
    assert (report.damaged, report.unreadable, report.missing, report.failed) == (0, 0, 0, 0)
    stored = Counter(attempt.verdict for attempt in read_attempts(site_dir))["accepted"]
    # a line whose sync failed, and that could not be taken back, is there without being counted
    assert stored - result.captcha.get("stored", 0) in {0, 1}


FAILURES: list[dict[str, Any]] = [
    {"code": errno.ENOSPC, "lasts": True},
    {"code": errno.EIO},
    {"code": errno.ENOSPC},
    {"code": errno.EIO, "lasts": True},
]


@pytest.mark.parametrize(("failure", "calls"), [(FAILURES[0], (2, 22)), (FAILURES[1], (9, 30))])
def test_a_crawl_goes_on_when_the_disk_fails(
    crawl: Callable[..., Crawl], tmp_path: Path, failure: dict[str, Any], calls: tuple[int, ...]
) -> None:
    for call in calls:
        assert crawl_with(crawl, tmp_path / str(call), call=call, **failure)


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_a_crawl_goes_on_whichever_call_the_disk_fails_at(
    crawl: Callable[..., Crawl], tmp_path: Path, failure: dict[str, Any]
) -> None:
    seen: Counter[str] = Counter()
    for call in range(1000):
        failed = crawl_with(crawl, tmp_path / str(call), call=call, **failure)
        if not failed:
            break
        seen[failed[0]] += 1
    assert {"mkdir", "open", "write", "fsync", "link"} <= set(seen)
    print(f"{seen.total()} crawls, each with another failing call: {dict(seen)}")


@pytest.mark.slow
def test_a_crawl_goes_on_whichever_look_at_the_disk_fails(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    read = 0
    for call in range(2, 1000):  # the first two are for the site's own model: see below
        failed = crawl_with(crawl, tmp_path / str(call), errno.EIO, call, reads=True)
        if not failed:
            break
        read += failed[0] in {"stat", "scandir", "listdir"}
    assert read > 20


def test_a_dataset_that_cannot_be_looked_at_is_a_clear_error_before_the_crawl(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    disk = {"folder": str(tmp_path), "code": errno.EACCES, "call": 0, "reads": True}
    with Gate() as site:
        result = crawl(
            site, 1, trouble=True, EXTENSIONS={"disk_extension.Extension": 0}, FAILING_DISK=disk
        )
    assert result.error is not None
    assert result.error.startswith("DatasetError: ")
    assert "allow this user to write there, or choose another folder (CAPTCHA_DATASET)" in (
        result.error
    )


def test_a_dataset_that_breaks_before_the_first_page_stops_the_harvesting_alone(
    crawl: Callable[..., Crawl], tmp_path: Path
) -> None:
    assert crawl_with(crawl, tmp_path / "captchas", errno.EIO, 2, reads=True) == ["stat"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_crawl_goes_on_when_the_disk_is_really_full(
    crawl: Callable[..., Crawl], small_disk: Path
) -> None:
    for free in (0, 2):  # pages
        disk = os.statvfs(small_disk)
        filler = (disk.f_bavail - free) * disk.f_frsize
        (small_disk / f"filler{free}").write_bytes(b"x" * filler)
        with Gate(accept=2, every=3) as site:
            result = crawl(site, PAGES, CAPTCHA_DATASET=str(small_disk / "captchas"))
        assert_crawled_on(result, loud=True)
        assert any("the disk is full: free some space" in line for line in result.log)
        assert_sound(small_disk / "captchas" / site_folder(site.netloc), result)
        (small_disk / f"filler{free}").unlink()

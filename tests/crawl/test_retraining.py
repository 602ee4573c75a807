"""A crawl that retrains: with a trainer that learns nothing, and a site that knows who answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from crawling import Job, Process
from judges import Judge, Trainer, reader_with_another_alphabet

from scrapy_captcha import versions
from scrapy_captcha.attempts import attempts_in_order, read_attempts
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import Recognizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crawling import Crawl

RULE = {"length": 4, "min_confidence": 0, "max_attempts": 200, "canary_rate": 0}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    names = {"old": 5, "new": 11}
    return {name: reader_with_another_alphabet(folder / name, n) for name, n in names.items()}


@pytest.fixture(scope="module")
def readers(bundles: dict[str, Path]) -> dict[str, Recognizer]:
    return {name: Recognizer.load(str(path)) for name, path in bundles.items()}


def options(bundles: dict[str, Path], **more: Any) -> dict[str, Any]:
    return {
        "CAPTCHA_MODEL": str(bundles["old"]),
        "CAPTCHA_RETRAIN_AFTER": 6,
        "CAPTCHA_TIMEOUT": 600,
        "CONCURRENT_REQUESTS": 2,
        "CAPTCHA_BREAKER": 1000,
        **more,
    }


def own(tmp_path: Path, site: Judge) -> Path:
    return tmp_path / "captchas" / site_folder(site.netloc) / "model"


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hold_back(site: Judge, accepted: int, until: Callable[[], object], seconds: float = 30) -> None:
    """Let a crawl go on after so many accepted answers only when something has happened.

    And a second later: a crawl looks after its trainer four times a second.
    """
    held, others = threading.Event(), site.on_request

    def hold(seen: Any) -> None:
        others(seen)
        if len(site.accepted) >= accepted and not held.is_set():
            wait_until(lambda: bool(until()), seconds)
            time.sleep(1)
            held.set()

    site.on_request = hold


def test_a_better_challenger_is_promoted_and_read_with_at_once(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.4, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.answers)
        result = crawl(site, 45, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 45
    assert result.captcha["promoted"] == 1
    assert result.captcha["retrained"] >= 1
    current = versions.current(own(tmp_path, site))
    assert current is not None
    # a newer one may have been on trial when the crawl ended
    changed = [entry[1:] for entry in result.signals if entry[0] == "reader_changed"]
    assert changed[0] == ["promoted", readers["new"].model_hash]
    by_model = Counter(a.model for a in read_attempts(own(tmp_path, site).parent))
    assert by_model[readers["new"].model_hash] == site.count("new") > 20
    # the trial itself: few answers, the old one's and the new one's in turn
    first = [name for name, _ in site.answered].index("new")
    trial = [name for name, _ in site.answered[first : first + 10]]
    assert 4 <= trial.count("new") <= 7
    assert result.captcha["acceptance"] > 0.5
    assert trainer.requests[0]["base"] == str(bundles["old"] / versions.current(bundles["old"]))
    assert trainer.requests[0]["restart"] is False
    assert trainer.alive() == []
    # and the next crawl begins with it
    with Judge(readers, {"old": 0.0, "new": 1.0}) as again:
        rule = {**RULE, "dataset": site_folder(site.netloc)}
        result = crawl(again, 5, rule, CAPTCHA_MODEL=str(bundles["old"]))
        assert again.count("old") == 0
        assert result.captcha["accepted"] == 5


def test_a_worse_challenger_is_dropped_and_the_trainer_starts_afresh(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.9, "new": 0.1}) as site:
        hold_back(site, 7, until=lambda: trainer.answers)
        result = crawl(site, 45, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 45
    assert result.captcha["rolled_back"] >= 1
    assert "promoted" not in result.captcha
    assert versions.current(own(tmp_path, site)) is None
    assert any(request["restart"] for request in trainer.requests[1:])
    assert site.count("new") < site.count("old")


def test_a_promoted_model_that_fails_afterwards_is_taken_back(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])

    def at_first(given: int) -> float:
        return 1.0 if given < 8 else 0.0

    with Judge(readers, {"old": 0.5, "new": at_first}) as site:
        hold_back(site, 13, until=lambda: trainer.answers)
        result = crawl(
            site, 40, RULE, trainer=trainer.command, **options(bundles, CAPTCHA_RETRAIN_AFTER=12)
        )
    assert len(result.items) == 40
    assert result.captcha["promoted"] == 1
    assert result.captcha["rolled_back"] >= 1
    changed = [entry[1:] for entry in result.signals if entry[0] == "reader_changed"]
    assert changed[1] == ["rolled_back", readers["old"].model_hash]
    assert versions.current(own(tmp_path, site)) is None
    assert any(request["restart"] for request in trainer.requests[1:]) or len(trainer.requests) == 1


def test_a_disk_that_fails_during_a_contest_costs_no_page(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.4, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.answers)
        others, confirmed = site.on_request, own(tmp_path, site).parent / "confirmed"

        def fail(seen: Any) -> None:
            others(seen)
            if site.count("new") and confirmed.is_dir():
                confirmed.rename(confirmed.with_name("away"))
                confirmed.write_text("in the way")

        site.on_request = fail
        result = crawl(site, 40, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 40
    assert result.failures == []
    assert result.captcha["failed/storage"] == 1
    assert "promoted" not in result.captcha
    assert 1 <= site.count("new") <= 3


def test_a_trainer_that_is_killed_costs_nothing_but_itself(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"], die_at=1)
    with Judge(readers, {"old": 0.5, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.requests)
        hold_back(site, 20, until=lambda: trainer.answers)
        result = crawl(site, 50, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 50
    assert len(trainer.starts) == 2
    assert len(trainer.requests) >= 2
    assert result.captcha["promoted"] == 1
    (said,) = [line for line in result.log if "came to nothing" in line]
    assert "code -9" in said
    assert "trainer.log" in said
    assert (tmp_path / "captchas" / "trainer.log").exists()


def test_a_spider_that_closes_does_not_wait_for_the_trainer(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"], hang_at=1)
    with Judge(readers, {"old": 1.0, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.requests)
        result = crawl(site, 20, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 20
    assert len(trainer.requests) == 1
    assert trainer.alive() == []
    assert result.stats["elapsed_time_seconds"] < 30


def test_a_rule_that_names_a_model_is_not_retrained(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 1.0, "new": 1.0}) as site:
        rule = {**RULE, "model": str(bundles["old"])}
        crawl(site, 30, rule, trainer=trainer.command, **options(bundles))
    assert trainer.starts == []


def process(site: Judge, pages: int, tmp_path: Path, trainer: Trainer, **settings: Any) -> Process:
    settings = {
        "CAPTCHA_SITES": {site.netloc: RULE},
        "CAPTCHA_DATASET": str(tmp_path / "captchas"),
        "LOG_LEVEL": "INFO",
        **settings,
    }
    return Process(Job(site.pages(pages), settings, trainer.command))


def kill(crawl: Process) -> None:
    assert crawl.popen.stdout is not None
    with crawl.popen.stdout:
        crawl.popen.send_signal(signal.SIGKILL)
        crawl.popen.wait()


def test_a_crawl_that_is_killed_takes_its_trainer_along_and_the_next_one_goes_on(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    hangs = Trainer(folder, bundles["new"], hang_at=1)
    with Judge(readers, {"old": 0.5, "new": 1.0}) as site:
        first = process(site, 1000, tmp_path, hangs, **options(bundles))
        wait_until(lambda: bool(hangs.requests))
        kill(first)
        wait_until(lambda: not hangs.alive(), 10)
        stored = len(list((own(tmp_path, site).parent / "confirmed").iterdir()))
        assert stored >= 6
        # nothing came of that training: the stored images are enough for the next crawl
        trainer = Trainer(tmp_path, bundles["new"])
        hold_back(site, len(site.accepted) + 1, until=lambda: trainer.answers)
        result = crawl(site, 30, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 30
    assert result.captcha["promoted"] == 1


def test_a_challenger_that_nobody_has_judged_is_tried_by_the_next_crawl(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.5, "new": 0.5}) as site:
        first = process(site, 1000, tmp_path, trainer, **options(bundles))
        wait_until(lambda: site.count("new") > 1)
        kill(first)
        assert versions.current(own(tmp_path, site)) is None
        site.shares |= {"old": 0.1, "new": 1.0}
        count = len(trainer.requests)
        result = crawl(
            site, 40, RULE, trainer=trainer.command,
            **options(bundles, CAPTCHA_RETRAIN_AFTER=1000),
        )  # fmt: skip
    assert len(trainer.requests) == count
    assert result.captcha["promoted"] == 1
    assert "retrained" not in result.captcha


def test_what_an_always_yes_site_accepts_is_put_into_quarantine_and_not_trained_on(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 1.0, "new": 1.0}, wrong=True) as site:
        rule = {key: value for key, value in RULE.items() if key != "canary_rate"}
        result = crawl(site, 40, rule, trainer=trainer.command, **options(bundles))
    # the page that an accepted canary led to is a page like any other
    assert len(result.items) == 40
    assert result.captcha["canary"] == site.canaries >= 1
    assert result.captcha["submitted"] == result.captcha["accepted"] == 40 - site.canaries
    assert result.captcha["quarantined"] == 40 - site.canaries
    folder = own(tmp_path, site).parent
    assert list((folder / "confirmed").iterdir()) == []
    assert len(list((folder / "quarantined").iterdir())) == 40 - site.canaries
    assert trainer.requests == []
    warned = [line for line in result.log if "does not count" in line]
    assert len(warned) == 1
    assert result.signalled("site_quarantined") == {site.netloc: 1}


def test_an_honest_site_rejects_a_canary_before_the_first_training(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 1.0, "new": 1.0}) as site:
        hold_back(site, 20, until=lambda: trainer.answers)
        rule = {key: value for key, value in RULE.items() if key != "canary_rate"}
        result = crawl(site, 40, rule, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 40
    assert result.captcha["canary"] == site.canaries >= 1
    assert "rejected" not in result.captcha
    assert result.captcha["accepted"] == 40
    assert trainer.requests
    lines = attempts_in_order(own(tmp_path, site).parent)
    first = [line.verdict for line in lines].index("canary_rejected")
    assert first <= 16
    assert "quarantined" not in result.captcha


def test_a_site_that_turns_liar_costs_the_models_that_learnt_from_it(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    """What was promoted since the last canary that the site rejected is taken back."""
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.2, "new": 1.0}) as site:
        hold_back(site, 20, until=lambda: trainer.answers)

        def turn(seen: Any) -> None:
            others(seen)
            site.wrong = site.count("new") > 2

        others = site.on_request
        site.on_request = turn
        rule = {**RULE, "canary_rate": 0.5}
        result = crawl(site, 60, rule, trainer=trainer.command, **options(bundles))
    assert result.captcha["quarantined"] >= 1
    lines = attempts_in_order(own(tmp_path, site).parent)
    assert "canary_accepted" in [line.verdict for line in lines]
    assert versions.current(own(tmp_path, site)) is None
    assert len(result.items) == 60


def test_a_site_that_accepts_what_its_reader_cannot_have_read_is_not_believed(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    """No canaries here, but a model whose confidence, of 0.1 to 0.4, was measured on the site."""
    trainer = Trainer(tmp_path, bundles["new"], calibrated=True)
    with Judge(readers, {"old": 0.4, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.answers)
        result = crawl(site, 110, RULE, trainer=trainer.command, **options(bundles))
    assert len(result.items) == 110
    assert result.captcha["promoted"] >= 1
    assert result.captcha["quarantined"] >= 10
    verdicts = [line.verdict for line in attempts_in_order(own(tmp_path, site).parent)]
    assert "improbable" in verdicts
    assert "canary" not in result.captcha
    assert versions.current(own(tmp_path, site)) is None
    assert any("more than its reader can have read" in line for line in result.log)


@pytest.mark.parametrize(
    "settings",
    [
        {"TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor"},
        {"TWISTED_REACTOR_ENABLED": False},
    ],
    ids=["select", "no reactor"],
)
def test_retraining_needs_no_certain_reactor(
    tmp_path: Path, bundles: Any, readers: Any, settings: dict[str, Any]
) -> None:
    trainer = Trainer(tmp_path, bundles["new"])
    with Judge(readers, {"old": 0.4, "new": 1.0}) as site:
        hold_back(site, 7, until=lambda: trainer.answers)
        result = process(site, 30, tmp_path, trainer, **options(bundles), **settings).result()
    assert len(result.items) == 30
    assert result.captcha["promoted"] == 1
    assert trainer.alive() == []
    assert result.trouble == []


def test_ctrl_c_in_the_terminal_reaches_the_crawl_alone(
    tmp_path: Path, bundles: Any, readers: Any
) -> None:
    trainer = Trainer(tmp_path, bundles["new"], hang_at=1)
    with Judge(readers, {"old": 1.0, "new": 1.0}) as site:
        crawl = process(site, 5000, tmp_path, trainer, **options(bundles))
        wait_until(lambda: bool(trainer.requests))
        (pid,) = trainer.alive()
        assert os.getsid(pid) != os.getsid(crawl.popen.pid)
        crawl.popen.send_signal(signal.SIGINT)
        result = crawl.result()
    assert result.finish_reason == "shutdown"
    assert trainer.alive() == []


def test_the_real_trainer_hands_a_challenger_to_the_running_crawl(
    crawl: Callable[..., Crawl], tmp_path: Path, bundles: Any, readers: Any
) -> None:
    """It learns what its base reads, for that is what this site accepts."""
    with Judge({"old": readers["old"]}, {"old": 1.0}) as site:
        model = own(tmp_path, site)
        hold_back(site, 13, until=lambda: list(model.glob("2*/bundle.json")), seconds=150)
        result = crawl(
            site,
            40,
            RULE,
            **options(bundles, CAPTCHA_RETRAIN_AFTER=12, CLOSESPIDER_TIMEOUT=170),
            DOWNLOAD_TIMEOUT=170,
        )
    log = (tmp_path / "captchas" / "trainer.log").read_text()
    assert len(result.items) == 40, log
    assert result.captcha["retrained"] >= 1, log
    models = {attempt.model for attempt in read_attempts(model.parent)}
    assert readers["old"].model_hash in models
    assert len(models) >= 2
    assert "came to nothing" not in "".join(result.log)

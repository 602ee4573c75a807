"""Rounds of training beside a crawl: what goes on, what begins anew, and what comes of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

pytest.importorskip("keras")

from drawn_captchas import captcha, texts

from scrapy_captcha.bundle import is_bundle, open_bundle
from scrapy_captcha.dataset import SiteDataset
from scrapy_captcha.errors import CaptchaError
from scrapy_captcha.recognizer import Recognizer
from scrapy_captcha.versions import promote
from trainer import rounds as module
from trainer.corpus import Corpus, Sample
from trainer.finish import SEEN
from trainer.gate import Comparison
from trainer.rounds import Request, Rounds, choose_steps


@pytest.fixture
def site(tmp_path):
    """A site's folder with 30 confirmed images."""
    folder = tmp_path / "captchas" / "shop"
    confirm(folder, range(30))
    return folder


def confirm(folder, numbers):
    """Images as a crawl stores them."""
    (folder / "confirmed").mkdir(parents=True, exist_ok=True)
    labels = texts(400, seed=11)
    for number in numbers:
        data = captcha(labels[number], number)
        digest = hashlib.sha256(data).hexdigest()[:16]
        (folder / "confirmed" / f"{labels[number]}_{digest}.png").write_bytes(data)


@pytest.fixture
def short(monkeypatch):
    """Rounds of few steps."""
    monkeypatch.setattr(module, "STEPS", (2, 3))


@pytest.fixture(scope="module")
def rounds():
    """What trains one site after another: each test has a site of its own."""
    return Rounds()


def request(folder, base, **more):
    return Request(folder, str(base), folder / "model", **more)


def made(folder, answer):
    """How the version of an answer came to be."""
    return open_bundle(folder / "model" / answer["version"]).manifest.provenance


def test_a_round_writes_a_challenger_that_nobody_reads_yet(rounds, site, trained, short):
    said = rounds.train(request(site, trained[0]))
    assert said["event"] == "trained"
    assert (said["labels"], said["held_out"], said["rejections"]) == (30, 0, 0)
    assert (said["steps"], said["better"], said["table"]) == (3, None, None)
    assert json.loads(json.dumps(said)) == said
    assert not is_bundle(site / "model")
    recognizer = Recognizer.load(site / "model" / said["version"])
    assert recognizer.model_hash == said["model"]
    assert made(site, said)["trained_on"] == 30


def test_rounds_go_on_from_the_challenger_before_and_begin_anew_when_told(
    rounds, site, trained, short
):
    base = trained[0]
    first = rounds.train(request(site, base))
    confirm(site, range(30, 40))
    second = rounds.train(request(site, base))  # the first is still on trial
    assert made(site, second)["steps"] == first["steps"] + second["steps"]
    assert made(site, second)["rounds"] == 2
    promote(site / "model", second["version"])
    third = rounds.train(request(site, site / "model"))  # and now it reads
    assert made(site, third)["rounds"] == 3
    assert made(site, third)["base"]["model"] == open_bundle(base).hash
    again = rounds.train(request(site, base, restart=True))
    assert made(site, again)["rounds"] == 1
    unknown = rounds.train(request(site, site / "model"))  # as after a rollback to it
    assert made(site, unknown)["rounds"] == 1
    assert made(site, unknown)["base"]["model"] == second["model"]


def test_another_site_starts_from_its_own_base_and_the_first_is_forgotten(
    rounds, site, trained, short, tmp_path
):
    other = tmp_path / "captchas" / "other"
    confirm(other, range(50, 70))
    rounds.train(request(site, trained[0]))
    there = rounds.train(request(other, trained[0]))
    assert (there["labels"], made(other, there)["rounds"]) == (20, 1)
    back = rounds.train(request(site, trained[0]))
    assert made(site, back)["rounds"] == 1


def test_the_same_seed_and_labels_give_the_same_model_whatever_was_trained_before(
    rounds, site, trained, short, tmp_path
):
    other = tmp_path / "captchas" / "other"
    confirm(other, range(50, 70))
    warm = Rounds()
    warm.warm_up(str(trained[0]))
    rounds.train(request(other, trained[0]))
    first, second = (each.train(request(site, trained[0]))["model"] for each in (warm, rounds))
    assert first == second
    different = rounds.train(request(site, trained[0], seed=1, restart=True))["model"]
    assert different != first


def test_what_a_model_has_learnt_from_before_there_was_a_holdout_is_never_held_out(
    rounds, site, trained, short
):
    confirm(site, range(30, 190))
    few = rounds.train(request(site, trained[0]))
    marks = set(made(site, few)[SEEN])
    assert few["held_out"] == 0
    assert marks
    confirm(site, range(190, 390))
    many = rounds.train(request(site, trained[0]))
    assert many["held_out"] >= 10
    assert made(site, many)["trained_on"] + many["held_out"] == 390
    assert many["table"]["n"] == many["held_out"]
    assert set(made(site, many)[SEEN]) == marks
    assert open_bundle(site / "model" / many["version"]).manifest.accuracy["on"] == "holdout"


def test_a_challenger_that_is_worse_is_not_written_and_the_next_starts_from_the_champion(
    rounds, site, trained, short, monkeypatch
):
    rounds.train(request(site, trained[0]))
    before = set((site / "model").iterdir())
    worse = Comparison(n=20, champion=20, challenger=12, won=0, lost=8)
    monkeypatch.setattr(module, "judge", lambda *_: worse)
    said = rounds.train(request(site, trained[0]))
    assert (said["version"], said["model"], said["better"]) == (None, None, False)
    assert said["table"]["lost"] == 8
    assert set((site / "model").iterdir()) == before
    monkeypatch.undo()
    after = rounds.train(request(site, trained[0]))
    assert made(site, after)["rounds"] == 1


def test_only_the_newest_images_are_learnt_from_and_kept_in_memory(
    site, trained, short, monkeypatch
):
    dataset = SiteDataset("shop", site)
    for number in range(200, 212):
        dataset.store(captcha("01", number), "44", 0.4, "m", "rejected")
    dataset.close()
    monkeypatch.setattr(module, "NEWEST", 8)
    monkeypatch.setattr(module, "NEWEST_REJECTED", 3)
    for age, path in enumerate(sorted((site / "confirmed").iterdir())):
        os.utime(path, (1e9 - age, 1e9 - age))
    newest = {hash_of(path) for path in sorted((site / "confirmed").iterdir())[:8]}
    held = {d for d in map(hash_of, (site / "confirmed").iterdir()) if int(d[:2], 16) < 26}
    learner = Rounds(rejected=1.0)
    said = learner.train(request(site, trained[0]))
    assert said["rejections"] == 3
    assert len(newest) <= said["labels"] <= 8 + len(held)
    confirm(site, range(30, 50))  # written later than all others
    for path in (site / "rejected").iterdir():
        path.unlink()
    later = learner.train(request(site, trained[0]))
    assert later["rejections"] == 0
    assert len(learner._site.known) == later["labels"]
    assert not (newest - held) & set(learner._site.known)


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_labels_that_the_base_cannot_read_wait_and_do_not_stop_the_others(
    rounds, site, trained, short
):
    for name in ("zz", "0147"):
        (site / "confirmed" / f"{name}.png").write_bytes(captcha(name, 99))
    assert rounds.train(request(site, trained[0]))["labels"] == 30


def test_rejected_answers_are_counted_and_learnt_from_when_they_weigh_something(
    rounds, site, trained, short
):
    dataset = SiteDataset("shop", site)
    for number in range(200, 212):
        dataset.store(captcha("01", number), "44", 0.4, "m", "rejected")
    dataset.close()
    plain = rounds.train(request(site, trained[0]))
    weighed = Rounds(rejected=1.0).train(request(site, trained[0]))
    assert weighed["rejections"] == 12
    assert plain["model"] != weighed["model"]


def test_a_model_is_chosen_by_the_lengths_of_the_labels_when_that_is_left_open(
    rounds, tmp_path, trained, short, monkeypatch
):
    for name in ("alnum4", "alnum8"):
        shutil.copytree(trained[0], tmp_path / "shipped" / name)
    monkeypatch.setattr("scrapy_captcha.bundle.shipped_folder", lambda: tmp_path / "shipped")
    asked = []
    opened = module.open_bundle
    monkeypatch.setattr(module, "open_bundle", lambda name: asked.append(name) or opened(name))
    site = tmp_path / "captchas" / "shop"
    confirm(site, range(10))
    rounds.train(request(site, "auto"))
    assert "alnum8" in asked


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "expected"),
        ("nonsense", "expected .*, got nonsense"),
        ("[]", "expected"),
        ('{"dataset": "a", "base": "b"}', "expected"),
        ('{"dataset": "a", "base": "b", "out": ""}', "expected"),
        ('{"dataset": "a", "base": "b", "out": "c", "seed": -1}', "expected"),
        ('{"dataset": "a", "base": "b", "out": "c", "restart": 1}', "expected"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(line, complaint):
    with pytest.raises(CaptchaError, match=complaint):
        Request.parse(line)


def test_what_cannot_be_trained_says_why_and_nothing_is_written(rounds, tmp_path, trained):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(CaptchaError, match="no such folder"):
        rounds.train(request(nowhere, trained[0]))
    confirm(tmp_path / "one", range(1))
    with pytest.raises(CaptchaError, match="at least 2 usable"):
        rounds.train(request(tmp_path / "one", trained[0]))
    confirm(tmp_path / "two", range(9))
    with pytest.raises(CaptchaError, match="no model 'alnum99'"):
        rounds.train(request(tmp_path / "two", "alnum99"))
    with pytest.raises(CaptchaError, match="at least 2 labels of 4 characters"):
        rounds.train(request(tmp_path / "two", "alnum4"))
    assert not any(tmp_path.rglob("model"))


def test_the_more_labels_are_new_the_longer_is_a_round():
    samples = tuple(Sample(f"{i}.png", "ab", str(i).encode()) for i in range(100))
    loaded = Corpus(samples, np.zeros((100, 32, 90), np.float16), ())
    old = [sample.digest for sample in samples]
    assert choose_steps(loaded, old) == 80
    assert choose_steps(loaded, old[25:]) == 100
    assert choose_steps(loaded, []) == 150

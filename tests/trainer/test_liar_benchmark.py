"""The benchmark of lying sites: what its site says, and how its runs are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from drawn_captchas import captcha

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import liar

from trainer.corpus import Sample


def run(**more):
    given = {"lies": 0.0, "canaries": "off", "seed": 0, "pages": 10, "holdout": 5}
    return liar.Run(set="a", base="alnum4", retrain_after=5, delay=0, **(given | more))


def answered(lies, *, seed=0, count=200):
    """Which of so many wrong answers a site accepts, after a right one."""
    samples = [Sample(f"{i}", "ab", b"%d" % i) for i in range(count + 1)]
    site = liar.Site(samples, run(lies=lies, seed=seed))
    try:
        site.show("me")
        assert site.judge("me", "AB")
        accepted = []
        for i in range(count):
            site.show("me")
            if site.judge("me", "zz"):
                accepted.append(i)
            assert not site.judge("me", "ab")  # an image takes one answer
        assert (site.right, site.lied) == (1, len(accepted))
    finally:
        site.server_close()
    return set(accepted)


def test_the_site_lies_as_often_as_it_is_told_and_at_the_same_images_each_time():
    assert answered(0) == set()
    assert len(answered(1)) == 200
    some = answered(0.1)
    assert 5 <= len(some) <= 40
    assert answered(0.1) == some
    assert some <= answered(0.5)
    assert answered(0.1, seed=1) != some


def test_once_all_images_were_shown_everybody_is_let_in():
    site = liar.Site([Sample("0", "ab", b"0")], run())
    try:
        assert not site.lets_in("me")
        site.show("me")
        assert site.judge("me", "ab")
        assert site.lets_in("me")
        assert site.lets_in("somebody else")
    finally:
        site.server_close()


def line(lies, canaries, seed, accuracy):
    return {
        "lies": lies,
        "canaries": canaries,
        "seed": seed,
        "accuracy": accuracy,
        "base_accuracy": 0.5,
    }


def test_runs_are_compared_seed_by_seed():
    lines = [
        line(lies, canaries, seed, accuracy + seed / 10)
        for lies, canaries, accuracy in ((0.0, "off", 0.6), (1.0, "off", 0.3), (1.0, "on", 0.5))
        for seed in range(3)
    ]
    found = {(c["compared"], c["with"]): c for c in liar.comparisons(lines)}
    assert set(found) == {
        ("lies 0, canaries off", "its base"),
        ("lies 1, canaries off", "its base"),
        ("lies 1, canaries off", "an honest site"),
        ("lies 1, canaries on", "its base"),
        ("lies 1, canaries on", "without canaries"),
    }
    gain = found["lies 1, canaries on", "without canaries"]
    assert (gain["n"], gain["mean_difference"]) == (3, 0.2)
    assert gain["interval_95"] == pytest.approx([0.2, 0.2])
    assert found["lies 0, canaries off", "its base"]["mean_difference"] == pytest.approx(0.2)
    low, high = found["lies 0, canaries off", "its base"]["interval_95"]
    assert (low, high) == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484), abs=1e-3)
    assert liar.interval([0.1]) is None


def test_a_set_is_what_the_base_can_read_each_image_once(tmp_path):
    for name in ("1a8m", "1a8m_copy", "abcde", "0b2c"):
        (tmp_path / f"{name}.png").write_bytes(captcha(name.partition("_")[0]))
    assert sorted(s.label for s in liar.read_set(tmp_path, "alnum4")) == ["0b2c", "1a8m"]

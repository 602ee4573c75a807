from __future__ import annotations

import math

import pytest

from trainer.gate import compare, sign_test


def test_the_p_value_is_that_of_tossing_fair_coins():
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(0, 5) == 1.0
    assert sign_test(8, 2) == pytest.approx((math.comb(10, 8) + 10 + 1) / 1024)


def readings(right, wrong):
    return ["ab"] * right + ["xx"] * wrong


@pytest.mark.parametrize(
    ("won", "lost", "better"),
    [(5, 0, True), (4, 0, None), (9, 2, True), (8, 2, None), (0, 4, None), (0, 5, False)],
)
def test_a_challenger_is_better_only_if_chance_does_not_explain_it(won, lost, better):
    champion = ["ab"] * 30 + ["xx"] * won + ["ab"] * lost + ["xx"] * 3
    challenger = ["ab"] * 30 + ["ab"] * won + ["xx"] * lost + ["yy"] * 3
    found = compare(champion, challenger, ["ab"] * len(champion))
    assert (found.won, found.lost) == (won, lost)
    assert found.better is better
    assert found.challenger - found.champion == won - lost


def test_a_rejected_image_counts_only_against_a_challenger_that_alone_repeats_what_was_rejected():
    rejected = [
        ("aa", "bb", ("bb", "cc")),  # the challenger repeats it
        ("bb", "bb", ("bb",)),  # both do
        ("bb", "dd", ("bb",)),  # the champion does: what the challenger reads may be wrong, too
        ("aa", "dd", ("bb",)),
        (None, None, ("bb",)),
    ]
    found = compare(["xx"] * 5, ["ab"] * 5, ["ab"] * 5, rejected)
    assert (found.rejections, found.repeated) == (5, 1)
    assert found.p == sign_test(5, 1)
    assert found.better is None
    assert compare(["xx"] * 5, ["ab"] * 5, ["ab"] * 5, rejected[1:]).better is True


def test_a_champion_that_cannot_read_the_task_loses_each_image():
    found = compare([None] * 6, readings(6, 0), ["ab"] * 6)
    assert (found.champion, found.won, found.better) == (0, 6, True)


def test_the_table_and_the_json_say_what_was_compared():
    found = compare(readings(8, 2), readings(9, 1), ["ab"] * 10, [("aa", "bb", ("bb",))])
    table = found.as_table()
    assert "0.8000 exact match on 10 held out" in table
    assert "1 of 1 rejected readings by the challenger alone" in table
    assert found.as_dict() == {
        "n": 10,
        "champion": 0.8,
        "challenger": 0.9,
        "won": 1,
        "lost": 0,
        "rejections": 1,
        "repeated": 1,
        "p": 0.75,
    }

"""Champion against challenger, and what follows for who reads a site."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import pytest

from scrapy_captcha.contest import (
    LEAST,
    MOST,
    WATCHED_FROM,
    Contest,
    Outcome,
    Score,
    Watch,
    chance_of_more,
)
from scrapy_captcha.lineup import Arm, Lineup

if TYPE_CHECKING:
    from scrapy_captcha.recognizer import Reader


def play(champion: float, challenger: float, rng: random.Random) -> tuple[Outcome, int]:
    contest = Contest([rng.random() < champion for _ in range(MOST)])
    for captchas in range(1, 1000):
        turn = contest.challengers_turn()
        outcome = contest.add(turn, rng.random() < (challenger if turn else champion))
        if outcome is not None:
            return outcome, captchas
    raise AssertionError("no end")


def share(of: Outcome, champion: float, challenger: float) -> float:
    rng = random.Random(f"{champion} {challenger}")
    return sum(play(champion, challenger, rng)[0] is of for _ in range(150)) / 150


def test_the_chance_is_the_integral_over_both_shares() -> None:
    rng = random.Random(1)
    one, other = Score(7, 9), Score(12, 20)
    drawn = sum(rng.betavariate(8, 3) > rng.betavariate(13, 9) for _ in range(40_000)) / 40_000
    assert chance_of_more(one, other) == pytest.approx(drawn, abs=0.01)
    assert chance_of_more(one, other) + chance_of_more(other, one) == pytest.approx(1)
    assert chance_of_more(Score(), Score()) == pytest.approx(0.5)


@pytest.mark.parametrize(("champion", "challenger"), [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7)])
def test_a_clearly_better_challenger_has_won_after_few_captchas(
    champion: float, challenger: float
) -> None:
    rng = random.Random(2)
    played = [play(champion, challenger, rng) for _ in range(100)]
    assert sum(outcome is Outcome.PROMOTED for outcome, _ in played) >= 98
    assert sum(captchas for _, captchas in played) / 100 < 30


def test_a_worse_challenger_is_promoted_seldom() -> None:
    assert share(Outcome.PROMOTED, 0.9, 0.8) < 0.2
    assert share(Outcome.PROMOTED, 0.8, 0.5) < 0.04
    assert share(Outcome.LOST, 0.8, 0.5) > 0.9


def test_an_equal_one_is_seldom_taken_for_clearly_worse() -> None:
    assert share(Outcome.LOST, 0.95, 0.95) < 0.2


@pytest.mark.parametrize(("mine", "expected"), [(48, Outcome.PROMOTED), (47, Outcome.DRAWN)])
def test_after_the_last_answer_a_draw_goes_to_a_challenger_that_is_not_below(
    mine: int, expected: Outcome
) -> None:
    contest = Contest([True] * 48 + [False] * 12)
    verdicts = ([True] * 4 + [False]) * 12
    verdicts[-1:] = [mine == 47] if mine == 48 else [False]
    outcomes = [contest.add(True, accepted) for accepted in verdicts[:-1]]
    assert set(outcomes) == {None}
    if mine == 47:
        contest.challenger = Score(contest.challenger.accepted - 1, contest.challenger.judged)
    assert contest.add(True, False) is expected


def test_a_contest_begins_with_what_is_known_of_the_champion() -> None:
    contest = Contest([False] * 100 + [True] * 30)
    assert contest.champion == Score(30, MOST)
    assert [contest.challengers_turn() for _ in range(4)] == [True, False, True, False]


def test_a_new_champion_that_falls_is_noticed_and_one_that_does_not_is_left_alone() -> None:
    watch = Watch(Score(50, 60))
    outcomes = [watch.add(accepted=False) for _ in range(WATCHED_FROM)]
    assert outcomes == [None] * (WATCHED_FROM - 1) + [Outcome.TAKEN_BACK]
    rng = random.Random(4)
    watches = [Watch(Score(50, 60)) for _ in range(100)]
    alarms = [
        Outcome.TAKEN_BACK in {w.add(rng.random() < 0.85) for _ in range(300)} for w in watches
    ]
    assert sum(alarms) <= 2


def test_a_new_champion_that_falls_later_is_noticed_too() -> None:
    watch = Watch(Score(8, 16))
    assert {watch.add(accepted=True) for _ in range(100)} == {None}
    assert Outcome.TAKEN_BACK in [watch.add(accepted=False) for _ in range(60)]


def arm(name: str) -> Arm:
    return Arm(cast("Reader", None), "ab", name)


def win(lineup: Lineup) -> None:
    assert lineup.challenger is not None
    outcomes = [lineup.judged(lineup.challenger, accepted=True) for _ in range(10)]
    assert Outcome.PROMOTED in outcomes


def test_readers_take_turns_only_while_there_is_a_contest() -> None:
    old, new = arm("old"), arm("new")
    lineup = Lineup(old)
    assert [lineup.next_arm() for _ in range(3)] == [old] * 3
    for _ in range(20):
        assert lineup.judged(old, accepted=False) is None
    assert lineup.challenge(new) is None
    assert [lineup.next_arm() for _ in range(4)] == [new, old, new, old]
    win(lineup)
    assert lineup.promote() is new
    assert [lineup.next_arm() for _ in range(3)] == [new] * 3
    assert not lineup.start_afresh


def test_a_newer_challenger_takes_the_place_and_the_champion_s_answers_stay() -> None:
    old, first, second = arm("old"), arm("first"), arm("second")
    lineup = Lineup(old)
    lineup.challenge(first)
    for _ in range(3):
        lineup.judged(old, accepted=True)
        lineup.judged(first, accepted=False)
    assert lineup.challenge(second) is first
    assert lineup.scores == (Score(3, 3), Score())
    assert lineup.judged(first, accepted=False) is None  # it was on its way
    assert lineup.scores == (Score(3, 3), Score())


def test_a_champion_that_falls_gives_way_to_the_one_before() -> None:
    old, new = arm("old"), arm("new")
    lineup = Lineup(old)
    for _ in range(60):
        lineup.judged(old, accepted=True)
    lineup.challenge(new)
    for _ in range(MOST - 1):
        assert lineup.judged(new, accepted=True) is not Outcome.LOST
        if lineup.scores[1].judged == MOST:
            break
    lineup.promote()
    outcomes = [lineup.judged(new, accepted=False) for _ in range(WATCHED_FROM)]
    assert outcomes[-1] is Outcome.TAKEN_BACK
    assert lineup.take_back() == ["new"]
    assert lineup.champion is old
    assert lineup.start_afresh
    assert lineup.take_back() == []


def promote(lineup: Lineup, name: str) -> None:
    lineup.challenge(arm(name))
    lineup.promote()


def test_distrust_goes_back_past_all_that_was_promoted_since_a_wrong_answer_was_rejected() -> None:
    old = arm("old")
    lineup = Lineup(old)
    assert lineup.distrust() == []
    promote(lineup, "proven")
    lineup.prove()
    proven = lineup.champion
    promote(lineup, "second")
    promote(lineup, "third")
    assert lineup.distrust() == ["second", "third"]
    assert lineup.champion is proven
    assert lineup.distrust() == []
    assert lineup.champion is proven


def test_a_second_promotion_since_a_wrong_answer_was_rejected_calls_for_another_one() -> None:
    lineup = Lineup(arm("old"))
    promote(lineup, "second")
    assert not lineup.doubtful
    promote(lineup, "third")
    assert lineup.doubtful
    lineup.prove()
    assert not lineup.doubtful


def test_one_that_fell_and_gave_way_to_an_unproven_one_is_not_gone_back_to() -> None:
    old = arm("old")
    lineup = Lineup(old)
    promote(lineup, "second")
    promote(lineup, "third")
    assert lineup.take_back() == ["third"]
    assert lineup.champion.version == "second"
    assert lineup.distrust() == ["second"]
    assert lineup.champion is old


def test_a_proven_one_that_falls_gives_way_to_the_one_before_which_is_proven_too() -> None:
    lineup = Lineup(arm("old"))
    promote(lineup, "second")
    promote(lineup, "third")
    lineup.prove()
    assert lineup.take_back() == ["third"]
    promote(lineup, "fourth")
    assert lineup.distrust() == ["fourth"]
    assert lineup.champion.version == "second"


def test_the_trainer_starts_afresh_until_it_has_made_something_since_it_was_told_to() -> None:
    lineup = Lineup(arm("old"))
    asked = lineup.era
    lineup.challenge(arm("new"))
    lineup.drop(afresh=True)
    lineup.learnt(asked)  # it was at work on that already
    assert lineup.start_afresh
    asked = lineup.era
    lineup.learnt(asked)
    assert not lineup.start_afresh
    lineup.challenge(arm("newer"))
    lineup.drop(afresh=False)
    assert not lineup.start_afresh


def test_a_challenger_that_has_hardly_read_is_untried() -> None:
    old, new = arm("old"), arm("new")
    lineup = Lineup(old)
    assert not lineup.untried
    lineup.challenge(new)
    for _ in range(LEAST):
        assert lineup.untried
        lineup.judged(new, False)
    assert not lineup.untried

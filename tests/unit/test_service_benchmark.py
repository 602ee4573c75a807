"""The benchmark of the web service: what it makes of answers, and how it seeks a capacity."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import service_load
from service_load import Answer, Step, capacity, clients, due, parse, percentile, summary


def answer(taken, *, status=200, ok=True, late=0.0):
    return Answer(0.0, late, taken, status, ok)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_a_percentile_is_one_of_the_values(percent, expected):
    assert percentile(range(100, 0, -1), percent) == expected


def test_the_99th_percentile_of_few_values_is_their_largest():
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert math.isnan(percentile([], 99))


def test_the_first_request_is_due_at_once():
    assert [due(10, seconds) for seconds in (0.05, 0.1, 0.11, 1)] == [1, 1, 2, 10]


def test_clients_are_enough_for_the_rate_and_none_is_idle_for_long():
    assert [clients(rate, 64) for rate in (1, 10, 100, 1000, 4000)] == [2, 20, 64, 125, 500]
    assert [clients(rate, 400) for rate in (10, 100, 1000, 4000)] == [20, 200, 400, 500]


def test_the_records_of_wrk_are_understood():
    lines = "0.000000 0.000100 0.002000 200 1\n0.500000 -0.000200 0.001000 429 0\n"
    assert parse(lines) == [
        Answer(0.0, 0.0001, 0.002, 200, True),
        Answer(0.5, -0.0002, 0.001, 429, False),
    ]


def test_only_readings_count_and_only_those_in_time_are_good():
    answers = [
        answer(0.010),
        answer(0.020, late=0.004),
        answer(1.5),
        answer(0.001, status=429, ok=False),
        answer(0.001, status=503, ok=False),
        answer(0.001, status=200, ok=False),
    ]
    step = summary(answers, rate=4, seconds=2, deadline=1.0)
    assert (step.sent, step.ok, step.good, step.refused) == (8, 3, 2, 1)
    assert step.failed == 4, "two were answered otherwise, two not at all"
    assert (step.p50, step.latest, step.longest) == (20.0, 1500.0, 1500.0)
    assert step.behind == 4.0
    assert step.goodput == 1.0


def test_the_longest_answer_counts_from_sending_and_the_latest_from_when_it_was_due():
    step = summary([answer(0.9, late=0.6), answer(0.5, late=-0.001)], 2, 1, 1.0)
    assert (step.latest, step.longest) == (900.0, 500.0)


def test_a_rate_passes_when_all_are_read_and_nearly_all_soon():
    quick = [answer(0.010)] * 99
    assert summary([*quick, answer(9.0)], 100, 1, 1.0).passes(25)
    assert not summary([*quick[:98], answer(9.0), answer(9.0)], 100, 1, 1.0).passes(25)
    assert not summary(quick, 100, 1, 1.0).passes(25), "one has no answer"
    refused = answer(0.001, status=429, ok=False)
    assert not summary([*quick, refused], 100, 1, 1.0).passes(25)


def test_a_rate_without_an_answer_does_not_pass():
    assert not summary([], 100, 1, 1.0).passes(25)


def test_what_k6_prints_becomes_the_same_figures():
    found = {
        "answered": {"p(50)": 3.0, "p(99)": 9.0, "max": 12.0, "count": 7},
        "from_sending": {"p(50)": 3.0, "p(99)": 9.0, "max": 11.0, "count": 7},
        "behind": {"p(50)": 0.0, "p(99)": 1.0, "max": 2.0, "count": 10},
        "good": {"count": 6},
        "refused": {"count": 2},
        "failed": {"count": 1},
        "dropped_iterations": {"count": 4},
    }
    step = service_load.summary_of_k6(found, rate=7, seconds=2.0)
    assert step == Step(7, 2.0, 14, 7, 6, 2, 5, 3.0, 9.0, 12.0, 11.0, 1.0)


@pytest.mark.parametrize("start", [1, 2, 20, 700, 5000])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 17, 699, 700, 2345])
def test_the_capacity_is_found_to_three_percent_from_anywhere(start, limit):
    tried = []

    def passes(rate):
        tried.append(rate)
        return rate <= limit

    found = capacity(passes, start)
    assert found <= limit <= found + max(1, 0.03 * found)
    assert found == limit or limit > 17
    assert len(tried) == len(set(tried)) <= 30

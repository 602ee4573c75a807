"""The queue and the pace, by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from scrapy_captcha.recognizer import Recognition
from scrapy_captcha.service.messages import Task
from scrapy_captcha.service.tickets import (
    Entry,
    Line,
    Pace,
    Reading,
    Refusal,
    Ticket,
    whole_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

READING = Reading(Recognition("1a8m", 1.0, ()), "alnum4")
LATE = Refusal(503, "late")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


def entries(loop: asyncio.AbstractEventLoop, name: str) -> list[Entry]:
    """A ticket's images, one a letter."""
    ticket = Ticket(loop.create_future(), [None] * len(name), deadline=1.0)
    tasks = [Task(0, None, None, letter.encode()) for letter in name]
    return [Entry(ticket, index, task) for index, task in enumerate(tasks)]


def taken(line: Line, most: int) -> str:
    return b"".join(entry.task.image for entry in line.take(most)).decode()


def test_first_come_first_served(loop: asyncio.AbstractEventLoop) -> None:
    line = Line()
    line.add(entries(loop, "abc"))
    line.add(entries(loop, "de"))
    assert line.waiting == 5
    assert [taken(line, 2), taken(line, 2), taken(line, 2), taken(line, 2)] == ["ab", "cd", "e", ""]
    assert line.waiting == 0


def test_what_is_tried_again_comes_first_and_alone(loop: asyncio.AbstractEventLoop) -> None:
    line = Line()
    line.add(entries(loop, "abcde"))
    lost = line.take(3)
    line.try_again(lost)
    assert line.waiting == 5
    assert [taken(line, 16) for _ in range(4)] == ["a", "b", "c", "de"]


def test_what_is_over_is_not_handed_out(loop: asyncio.AbstractEventLoop) -> None:
    line = Line()
    over, wanted = entries(loop, "abc"), entries(loop, "d")
    line.add(over)
    line.add(wanted)
    assert taken(line, 1) == "a"
    ticket = over[0].ticket
    assert ticket.settle_rest(LATE) == 3
    line.forget(ticket)
    line.forget(ticket)
    assert line.waiting == 1
    assert taken(line, 16) == "d"


def test_a_ticket_is_done_with_its_last_outcome(loop: asyncio.AbstractEventLoop) -> None:
    refused = Refusal(422, "too large")
    ticket = Ticket(loop.create_future(), [None, refused, None], deadline=1.0)
    ticket.settle(2, LATE)
    assert not ticket.over
    ticket.settle(0, READING)
    assert ticket.future.result() == [READING, refused, LATE]


def test_what_was_read_in_time_is_kept_when_the_rest_is_late(
    loop: asyncio.AbstractEventLoop,
) -> None:
    ticket = Ticket(loop.create_future(), [None, None], deadline=1.0)
    ticket.settle(1, READING)
    assert ticket.settle_rest(LATE) == 1
    assert ticket.future.result() == [LATE, READING]
    ticket.settle(0, READING)  # comes too late, and changes nothing
    assert ticket.future.result() == [LATE, READING]


def test_the_pace_follows_what_readings_take() -> None:
    pace = Pace()
    assert pace.wait(100, 2) == pytest.approx(0.05)
    for _ in range(50):
        pace.saw(16, 16 * 0.03)
    assert pace.wait(100, 2) == pytest.approx(1.5, rel=0.01)
    pace.saw(1, 60.0)  # one that took a minute is no rule
    assert pace.wait(100, 2) < 100
    for _ in range(50):
        pace.saw(16, 16 * 0.0005)
    assert pace.wait(100, 2) == pytest.approx(0.025, rel=0.01)


def test_a_client_is_asked_to_stay_away_for_whole_seconds() -> None:
    waits = [0.0, 0.2, 1.0, 1.01, 7.5, 1e9]
    assert [whole_seconds(wait) for wait in waits] == [1, 1, 1, 2, 8, 30]

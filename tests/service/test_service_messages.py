"""What one process says, the other one understands; and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_captcha.bundle import CASES, NAME
from scrapy_captcha.recognizer import Recognition
from scrapy_captcha.service.messages import (
    FAILED,
    READ,
    UNREADABLE,
    Answer,
    Described,
    Frames,
    MessageError,
    Models,
    ModelState,
    Task,
    decode_batch,
    decode_reply,
    encode_answers,
    encode_batch,
    encode_models,
)

PROBABILITIES = st.floats(0, 1)
READINGS = st.lists(st.tuples(st.characters(), PROBABILITIES), max_size=32)
TASKS = st.builds(
    Task,
    model=st.integers(0, 0xFFFF),
    charset=st.none() | st.text(st.characters(), max_size=4096),
    length=st.none() | st.integers(1, 0xFFFF),
    image=st.binary(),
)
ANSWERS = st.one_of(
    st.builds(
        lambda characters, confidence, model: Answer(
            READ,
            Recognition("".join(c for c, _ in characters), confidence, tuple(characters), model),
        ),
        READINGS,
        PROBABILITIES,
        st.text(max_size=33),
    ),
    st.builds(
        lambda status, message: Answer(status, None, message),
        st.sampled_from([UNREADABLE, FAILED]),
        st.text(st.characters(), max_size=500),
    ),
)
DESCRIBED = st.builds(
    Described, st.text(min_size=1), st.just(8), st.integers(1, 8), st.sampled_from(CASES)
)
VERSIONS = st.just("") | st.from_regex(NAME, fullmatch=True)
STATES = st.builds(ModelState, st.none(), st.text(), st.none(), VERSIONS) | st.builds(
    ModelState, st.text(), st.text(st.characters()), DESCRIBED, VERSIONS
)
#: The machine's pace is none of these tests' business.
trials = settings(deadline=None, max_examples=50)


def payload(frame: bytes) -> bytes:
    (only,) = Frames().feed(frame)
    return only


@trials
@given(st.lists(TASKS))
def test_a_batch_arrives_as_it_was_sent(tasks: list[Task]) -> None:
    assert decode_batch(payload(encode_batch(tasks))) == tasks


@trials
@given(st.lists(ANSWERS))
def test_answers_arrive_as_they_were_sent(answers: list[Answer]) -> None:
    assert decode_reply(payload(encode_answers(answers))) == answers


@trials
@given(st.lists(STATES, min_size=1))
def test_the_models_arrive_as_they_were_sent(states: list[ModelState]) -> None:
    assert decode_reply(payload(encode_models(states))) == Models(states)


@trials
@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 20))
def test_frames_come_out_whole_however_the_stream_is_cut(parts: list[bytes], step: int) -> None:
    stream = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    frames = Frames()
    found = []
    for begin in range(0, len(stream), step):
        found += frames.feed(stream[begin : begin + step])
    assert found == parts


def test_a_frame_longer_than_allowed_is_refused_before_it_has_come() -> None:
    with pytest.raises(MessageError, match="at most 10 bytes, got 11"):
        Frames(longest=10).feed((11).to_bytes(4, "big"))


def test_a_long_message_is_cut() -> None:
    (answer,) = decode_reply(payload(encode_answers([Answer(UNREADABLE, None, "x" * 10_000)])))
    assert answer == Answer(UNREADABLE, None, "x" * 500)


@trials
@given(st.binary() | st.binary().map(lambda data: b"A" + data))
def test_no_bytes_of_a_reader_raise_anything_but_what_is_expected(data: bytes) -> None:
    try:
        reply = decode_reply(data)
    except MessageError:
        return
    assert isinstance(reply, Models | list)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"X",
        b"M",
        b"M{}",
        b"M[[1,2]]",
        b"M[[null]]",
        b'M[[null, "", null, 7]]',
        b'M[[null, "", null, "../other"]]',
        b'M[["cafe", "", null, ""]]',
        b'M[[null, "", ["01", 4, 4, "lower"], ""]]',
        *(
            b'M[["cafe", "", %s, ""]]' % described
            for described in (b"7", b"[]", b'["", 4, 4, "lower"]', b'["01", 4, 5, "lower"]')
        ),
        b'M[["cafe", "", ["01", true, true, "lower"], ""]]',
        b'M[["cafe", "", ["01", 4, 4, ["lower"]], ""]]',
        b"M" + b"[" * 100_000,
        encode_answers([Answer(READ, Recognition("ab", 1.0, (("a", 1.0),)))])[4:],
        encode_answers([Answer(404, None, "no")])[4:],
        encode_answers([Answer(UNREADABLE, None, "torn")])[4:-1],
        encode_answers([Answer(READ, Recognition("a", 1.0, (("a", 1.0),)))])[4:-1],
    ],
)
def test_what_no_reader_says_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_reply(data)

"""What the front process and a reader say to each other: frames of bytes, never objects.

A frame is its payload's length and the payload. The front sends batches of tasks; an empty batch
asks the reader whether a newer version of a model is there. The reader answers each batch with one
frame of answers, in the tasks' order, and says what its models are when it has loaded them, before
the first answers that they gave.

The front trusts no reader, for a reader decodes images that come from anywhere: whatever does not
parse raises :class:`MessageError`.
"""

from __future__ import annotations

import json
from struct import Struct, error
from typing import TYPE_CHECKING, Any, NamedTuple

from scrapy_captcha.bundle import CASES, MAX_CHARSET, MAX_HEADS, NAME
from scrapy_captcha.recognizer import Recognition

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Statuses of an answer.
READ, UNREADABLE, FAILED = 200, 422, 503
#: The longest message to a client, in characters.
MAX_MESSAGE = 500
#: The longest frame that the front takes from a reader, in bytes.
MAX_ANSWERS = 4 << 20

_LENGTH = Struct("!I")
#: Model, length (0: any), bytes of the charset (0xFFFF: any), bytes of the image.
_TASK = Struct("!HHHI")
_ANY = 0xFFFF
#: Status, characters, bytes of the text, bytes of the model's hash, confidence.
_ANSWER = Struct("!HBHBd")
_CHANCES = [Struct(f"!{n}d") for n in range(256)]
_ANSWERS, _MODELS = b"A", b"M"
#: Python strings may hold halves of characters; they pass as they are.
_UTF8 = ("utf-8", "surrogatepass")


class MessageError(ValueError):
    """Bytes that are no message."""


class Task(NamedTuple):
    """One image to read.

    :param model: the place of the model among the configured ones
    :param charset: at most 65,534 bytes in UTF-8
    :param length: 1 to 65,535
    """

    model: int
    charset: str | None
    length: int | None
    image: bytes


class Answer(NamedTuple):
    """What came of a task.

    :param message: why it could not be read, for the client; empty when it was
    """

    status: int
    recognition: Recognition | None = None
    message: str = ""


class Described(NamedTuple):
    """What a model can read; as :class:`scrapy_captcha.bundle.Manifest` says it."""

    charset: str
    length: int
    min_length: int
    case: str


class ModelState(NamedTuple):
    """What a reader has loaded.

    :param hash: of the model that reads; ``None`` before one has been loaded
    :param error: why the newest version does not; empty when it does
    :param described: the model that reads
    :param version: the name of its folder in the bundle's; empty where there are no versions
    """

    hash: str | None
    error: str
    described: Described | None = None
    version: str = ""


class Models(NamedTuple):
    """What a reader has loaded, one state a model, in the configured order."""

    states: list[ModelState]


class Frames:
    """Cuts a stream of bytes into payloads.

    :param longest: the longest payload that is taken
    """

    def __init__(self, longest: int = 0xFFFFFFFF) -> None:
        self._longest = longest
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole once these bytes have come.

        :raises MessageError: when one is too long
        """
        buffer, payloads = self._buffer, []
        buffer += data
        begin = 0
        while len(buffer) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, begin)
            if length > self._longest:
                raise MessageError(f"expected at most {self._longest} bytes, got {length}")
            end = begin + _LENGTH.size + length
            if len(buffer) < end:
                break
            payloads.append(bytes(buffer[begin + _LENGTH.size : end]))
            begin = end
        del buffer[:begin]
        return payloads


def encode_batch(tasks: Sequence[Task]) -> bytes:
    """A frame of tasks."""
    parts: list[bytes] = []
    for model, charset, length, image in tasks:
        if charset is None:
            parts += (_TASK.pack(model, length or 0, _ANY, len(image)), image)
        else:
            letters = charset.encode(*_UTF8)
            parts += (_TASK.pack(model, length or 0, len(letters), len(image)), letters, image)
    return _frame(parts)


def decode_batch(payload: bytes) -> list[Task]:
    """The tasks of a frame; none are a request to look for newer models."""
    tasks, at = [], 0
    while at < len(payload):
        model, length, letters, size = _TASK.unpack_from(payload, at)
        at += _TASK.size
        charset = None
        if letters != _ANY:
            charset = payload[at : at + letters].decode(*_UTF8)
            at += letters
        tasks.append(Task(model, charset, length or None, payload[at : at + size]))
        at += size
    return tasks


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """A frame of answers."""
    parts = [_ANSWERS]
    for status, recognition, message in answers:
        if recognition is None:
            text = message[:MAX_MESSAGE].encode(*_UTF8)
            parts += (_ANSWER.pack(status, 0, len(text), 0, 0.0), text)
        else:
            text = recognition.text.encode(*_UTF8)
            chances = [chance for _, chance in recognition.characters]
            count = len(chances)
            model = recognition.model_hash.encode(*_UTF8)
            parts += (
                _ANSWER.pack(status, count, len(text), len(model), recognition.confidence),
                text,
                model,
                _CHANCES[count].pack(*chances),
            )
    return _frame(parts)


def encode_models(states: Sequence[ModelState]) -> bytes:
    """A frame that says what is loaded."""
    return _frame([_MODELS, json.dumps(states).encode()])


def decode_reply(payload: bytes) -> list[Answer] | Models:
    """What a reader said: answers, or what its models are.

    :raises MessageError: when it is neither
    """
    try:
        if payload[:1] == _ANSWERS:
            return _answers(payload)
        if payload[:1] == _MODELS:
            return _models(json.loads(payload[1:]))
    except (error, ValueError, TypeError, RecursionError) as e:
        raise MessageError(f"a reader said {payload[:40]!r}: {e}") from None
    raise MessageError(f"a reader said {payload[:40]!r}")


def _answers(payload: bytes) -> list[Answer]:
    answers, at, end = [], len(_ANSWERS), len(payload)
    while at < end:
        status, count, size, hash_size, confidence = _ANSWER.unpack_from(payload, at)
        at += _ANSWER.size
        text = payload[at : at + size].decode(*_UTF8)
        at += size
        if status == READ:
            model = payload[at : at + hash_size].decode(*_UTF8)
            at += hash_size
            chances = _CHANCES[count].unpack_from(payload, at)
            at += 8 * count
            characters = tuple(zip(text, chances, strict=True))
            answers.append(Answer(READ, Recognition(text, confidence, characters, model)))
        elif status in {UNREADABLE, FAILED} and at <= end:
            answers.append(Answer(status, None, text))
        else:
            raise MessageError(f"an answer of status {status}")
    return answers


def _models(entries: object) -> Models:
    states = [_state(*entry) for entry in entries] if isinstance(entries, list) else []
    if not states:
        raise MessageError("no models")
    return Models(states)


def _state(hash_: object, error: object, described: Any, version: object) -> ModelState:
    if not isinstance(hash_, str | None) or not isinstance(error, str):
        raise MessageError("no state of a model")
    if not isinstance(version, str) or not (version == "" or NAME.fullmatch(version)):
        raise MessageError("no name of a version")
    given = None if described is None else Described(*described)
    if (given is None) is not (hash_ is None) or not (given is None or _is_sound(given)):
        raise MessageError("no description of a model")
    return ModelState(hash_, error, given, version)


def _is_sound(given: Described) -> bool:
    return (
        isinstance(given.charset, str)
        and 1 <= len(given.charset) <= MAX_CHARSET
        and type(given.length) is int
        and type(given.min_length) is int
        and 1 <= given.min_length <= given.length <= MAX_HEADS
        and given.case in CASES
    )


def _frame(parts: list[bytes]) -> bytes:
    return b"".join([_LENGTH.pack(sum(map(len, parts))), *parts])

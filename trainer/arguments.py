"""What the command line's options may be; each raises with what was expected."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_captcha.bundle import MAX_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable

#: What `trainer.networks`, which takes a moment to import, can build, and what for.
ARCHITECTURES = {
    "four_head_compact": "the default for texts of one length up to four",
    "many_head_compact": "it counts: the default for longer ones and several lengths",
    "four_head_wide": "to start one of the compact ones from, by pretrain --base",
    "four_head_vgg": "larger and slower, for comparison",
}
#: Beyond it, sums of losses lose the others.
MAX_WEIGHT = 1e6


def architecture(text: str) -> str:
    """Parse the name of a network."""
    if text not in ARCHITECTURES:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(ARCHITECTURES)}, got {text!r}"
        )
    return text


def lengths(text: str) -> tuple[int, int]:
    """Parse "4" or "3-8"."""
    shortest, _, longest = text.partition("-")
    try:
        found = int(shortest), int(longest or shortest)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected 4 or 3-8, got {text!r}") from None
    if not 1 <= found[0] <= found[1] <= MAX_HEADS:
        raise argparse.ArgumentTypeError(
            f"expected lengths from 1 to {MAX_HEADS}, shortest first, got {text!r}"
        )
    return found


def characters(text: str) -> str:
    """Parse a charset."""
    if len(text) < 2 or len(set(text)) < len(text) or any(c.isspace() for c in text):
        raise argparse.ArgumentTypeError(
            f"expected at least two characters, each but once, and no spaces, got {text!r}"
        )
    return text


def weights(text: str) -> tuple[float, ...]:
    """Parse "1,1.2,1.2,1"."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < weight <= MAX_WEIGHT for weight in found):
        raise argparse.ArgumentTypeError(
            f"expected numbers above 0, a million at most, like 1,1.2,1.2,1, got {text!r}"
        )
    return found


def weight(text: str) -> float:
    """Parse a weight of a part of the loss, 0 for none."""
    return _number(text, lambda found: 0 <= found <= MAX_WEIGHT, "from 0 to a million")


def class_weights(text: str) -> dict[str, float] | str | None:
    """Parse "none", "balanced" or the name of a JSON file of weights by character."""
    if text in {"none", "balanced"}:
        return None if text == "none" else text
    expected = 'expected none, balanced, or a JSON file like {"0": 2, "o": 1.5}'
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise argparse.ArgumentTypeError(f"{expected}; {text}: {e}") from None
    if not isinstance(found, dict) or not all(
        len(character) == 1 and type(weight) in {int, float} and 0 < weight <= MAX_WEIGHT
        for character, weight in found.items()
    ):
        raise argparse.ArgumentTypeError(
            f"{expected} with numbers above 0, a million at most, in {text}"
        )
    return {character: float(weight) for character, weight in found.items()}


def groups(text: str) -> tuple[str, ...]:
    """Parse "0o,1il": characters that look alike."""
    found = tuple(text.split(","))
    everything = "".join(found)
    if not all(len(group) > 1 for group in found) or len(set(everything)) < len(everything):
        raise argparse.ArgumentTypeError(
            f"expected groups of characters like 0o,1il, each character in one, got {text!r}"
        )
    return found


def share(text: str) -> float:
    """Parse a share, from 0 to below 1."""
    return _number(text, lambda found: 0 <= found < 1, "from 0 to below 1")


def above_zero(text: str) -> float:
    """Parse a number of minutes."""
    return _number(text, lambda found: 0 < found < math.inf, "above 0")


def _number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not fits(found):
        raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text!r}")
    return found


def whole(text: str) -> int:
    """Parse a number of things, of which there is at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Parse a seed, 0 to 2^31 - 1."""
    if not text.isdecimal() or int(text) >= 1 << 31:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2^31, got {text!r}")
    return int(text)

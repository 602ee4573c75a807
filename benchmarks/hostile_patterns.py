"""How long a ``re:`` rule or a ``redirect`` pattern can take on a text that was made for it.

    python benchmarks/hostile_patterns.py [--kib 256] [--limit 200]

Prints a line of JSON for each pattern: milliseconds of processor time, and whether it was found,
not found, or given up; then one for the slowest. 256 KiB is what a pattern sees of a page at most.
Python's own ``re`` takes 6 s for the first one, and would take longer than the machine lives for
the second. The exit code is 1 when one takes longer than --limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from scrapy_captcha.patterns import SECONDS, Pattern, PatternTimeout

#: Patterns that people write and others, each with what is repeated in the text, and its end.
CASES = (
    ("wrong.*code", "wrong", ""),
    ("(a+)+$", "a", "b"),
    ("(a|aa)+$", "a", "b"),
    ("(x+x+)+y", "x", ""),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a", ""),
    (r"(\w+\s?)*[!]", "ab ", ""),
    (r"<p>.*?</p>.*?<b>", "<p>a</p>", ""),
    ("(?s)(?:.*?,){11}P", "1,", ""),
    ("(?s).*?a.*?b.*?c.*?d", "ab", ""),
    (".*.*.*.*x", "a", ""),
    (r"\s+$", " ", "x"),
    (r"(?:\s*a?)*$", " ", "b"),
    (r"(.+)\1+x", "ab", ""),
    (r"(?:(?=(a+))\1)+b", "a", ""),
    ("(?=.*b)a", "a", ""),
    ("(?:a{1,50}){1,50}b", "a", ""),
    ("a{1,1000}b", "a", ""),
    ("[ab]*c|[ab]*d|[ab]*e", "ab", ""),
    ("(?:[^<]|<[^b])*</b>$", "<a", ""),
    (r"(\d+,)+\d+x", "1,", ""),
    ("(?i)(wrong|code|error)+ again", "WRONG", ""),
    ("验证码(错误)*不正确", "验证码错误", ""),
)


def main() -> int:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kib", type=int, default=256, help="thousands of characters, about")
    parser.add_argument("--limit", type=float, help="most milliseconds that a search may take")
    options = parser.parse_args()
    slowest = {"milliseconds": 0.0}
    given_up = 0
    for text, unit, end in CASES:
        pattern = Pattern(text)
        page = unit * ((options.kib << 10) // len(unit)) + end
        started = time.process_time()
        try:
            outcome = "found" if pattern.search(page) else "not found"
        except PatternTimeout:
            outcome = "given up"
            given_up += 1
        took = round(1000 * (time.process_time() - started), 1)
        print(json.dumps({"pattern": text, "outcome": outcome, "milliseconds": took}), flush=True)
        if took > slowest["milliseconds"]:
            slowest = {"slowest": text, "milliseconds": took}
    print(json.dumps({**slowest, "given up": given_up, "deadline": 1000 * SECONDS}))
    return int(options.limit is not None and slowest["milliseconds"] > options.limit)


if __name__ == "__main__":
    sys.exit(main())

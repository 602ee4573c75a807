from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from scrapy_captcha.bundle import Golden


def test_each_file_is_read_and_those_that_cannot_be_are_named(
    scrapy: Callable[..., CompletedProcess[str]], tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "good.png").write_bytes(golden.image)
    (tmp_path / "broken.png").write_bytes(golden.image[:20])
    (tmp_path / "large.png").write_bytes(golden.image + bytes(2 << 20))

    done = scrapy("captcha", "read", "missing.png", "broken.png", "large.png", "good.png")

    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    file, text, confidence = done.stdout.split("\t")
    assert (file, text) == ("good.png", golden.text)
    assert 0 <= float(confidence) <= 1
    assert "missing.png: No such file or directory" in done.stderr
    assert "broken.png: the PNG of 20 bytes ends too early" in done.stderr
    assert "large.png: expected an image of at most 1048576 bytes" in done.stderr
    assert "Traceback" not in done.stderr


def test_as_json_each_file_is_one_object(
    scrapy: Callable[..., CompletedProcess[str]], tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "a.png").write_bytes(golden.image)

    done = scrapy("captcha", "read", "--json", "a.png", "missing.png")

    read, failed = map(json.loads, done.stdout.splitlines())
    assert (read["file"], read["text"]) == ("a.png", golden.text)
    assert [character for character, _ in read["characters"]] == list(golden.text)
    assert failed == {"file": "missing.png", "error": "No such file or directory"}


def test_a_charset_bounds_what_is_read_and_no_failure_means_exit_code_0(
    scrapy: Callable[..., CompletedProcess[str]], tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "a.png").write_bytes(golden.image)

    done = scrapy("captcha", "read", "--charset", "xy", "--length", "4", "a.png")

    assert done.returncode == 0
    assert set(done.stdout.split("\t")[1]) <= {"x", "y"}


def test_a_charset_that_the_model_does_not_know_is_a_usage_error(
    scrapy: Callable[..., CompletedProcess[str]], tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "a.png").write_bytes(golden.image)

    done = scrapy("captcha", "read", "--charset", "äö", "a.png")

    assert done.returncode == 2
    assert "does not know" in done.stderr


def test_the_projects_model_is_the_default(
    scrapy: Callable[..., CompletedProcess[str]],
    project: Callable[[str], None],
    tmp_path: Path,
    golden: Golden,
) -> None:
    project('CAPTCHA_MODEL = "models/of_ours"')
    (tmp_path / "a.png").write_bytes(golden.image)

    ours = scrapy("captcha", "read", "a.png")
    named = scrapy("captcha", "read", "--model", "alnum4", "a.png")

    assert ours.returncode == 1
    assert "no model 'models/of_ours'" in ours.stderr
    assert named.stdout.split("\t")[1] == golden.text

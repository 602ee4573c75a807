from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import timedelta
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest
from history import START, Written
from scrapy.settings import Settings

from scrapy_captcha.commands import stats as command
from scrapy_captcha.dataset import confirmed_pairs
from scrapy_captcha.errors import CaptchaError

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def stats(tmp_path, monkeypatch, capsys) -> Callable[..., CompletedProcess[str]]:
    """The command in this process, in the test's folder."""

    def run(*words: str) -> CompletedProcess[str]:
        parser = argparse.ArgumentParser(prog="scrapy captcha stats")
        command.add_options(parser)
        monkeypatch.chdir(tmp_path)
        try:
            code = command.run(parser.parse_args(words), Settings(), None)
        except CaptchaError as e:
            print(e, file=sys.stderr)
            code = 1
        return CompletedProcess(words, code, *capsys.readouterr())

    return run


def parsed(page: str) -> ET.Element:
    """The page as XML; it has no void elements but these."""
    return ET.fromstring(
        re.sub(r"<(meta)([^>]*)>", r"<\1\2/>", page.removeprefix("<!doctype html>"))
    )


def test_a_table_shows_what_each_site_accepted_and_what_else_is_known(scrapy: Run, tmp_path):
    shop = Written(tmp_path / "captchas")
    for i in range(300):
        shop.add(accepted=i % 4 != 0, model=f"{i // 150}" * 16)
    other = Written(tmp_path / "captchas", "127.0.0.1:8000")
    other.add(accepted=True)

    done = scrapy("captcha", "stats", "captchas")

    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1][:4] == ["127.0.0.1:8000", "1", "1", "1.000"]
    assert rows[2][:7] == ["shop.example", "300", "225", "0.750", "0.698", "-", "0.796"]
    assert ["0" * 16, "2026-11-01", "00:00:00", "150", "112"] in [row[:5] for row in rows]
    assert ["1" * 16, "2026-11-01", "02:30:00", "150", "113"] in [row[:5] for row in rows]
    assert "shop.example (captchas/shop.example)" in done.stdout
    assert "drift       none" in done.stdout


def test_as_json_everything_is_there_with_the_same_keys_before_the_first_answer(
    stats: Run, tmp_path
):
    shop = Written(tmp_path / "captchas")
    Written(tmp_path / "captchas", "new.example")
    for i in range(400):
        shop.add(accepted=i < 300)
    shop.add(True, "same", b"1")
    shop.add(True, "else", b"1")
    shop.line(b"c", "zzzz", "canary_rejected")
    shop.line(b"c", "zzzz", "canary_accepted")
    shop.line(b"1", "ab12", "quarantined")  # an answer given while the site's word is worthless
    (shop.folder / "quarantined").mkdir()
    (shop.folder / "quarantined" / "ab12_x.png").write_bytes(bytes(1000))

    new, site = json.loads(stats("captchas", "--json").stdout)["sites"]

    assert new.keys() == site.keys()
    assert new["answers"].keys() == site["answers"].keys()
    assert new["answers"]["judged"] == 0
    assert (site["site"], site["folder"]) == ("shop.example", "captchas/shop.example")
    assert (site["answers"]["judged"], site["answers"]["accepted"]) == (403, 303)
    assert (site["last"]["judged"], site["last"]["accepted"]) == (100, 3)
    assert sum(stretch["judged"] for stretch in site["over_time"]) == 403
    assert site["drift"] == "3% of the last 100 answers were accepted, 100% of the best 300 before"
    assert [len(conflict["files"]) for conflict in site["conflicts"]] == [2]
    assert site["canaries"] == {"accepted": 1, "rejected": 1}
    assert site["quarantine"] is True
    assert site["images"]["quarantined"] == 1
    assert site["bytes"]["folders"]["quarantined"] == 1000
    assert site["bytes"]["total"] > 1000


def test_the_page_has_a_plot_with_each_model_and_needs_nothing_from_elsewhere(stats: Run, tmp_path):
    shop = Written(tmp_path / "captchas", "<b>&.example")
    hostile = "<script>alert(1)</script>"
    for i in range(120):
        shop.add(accepted=i > 40, guess=hostile, model=hostile if i < 60 else "f" * 16)
    shop.add(True, "x", b"same", model="f" * 16)
    shop.add(True, "<i>", b"same", model="f" * 16)

    done = stats("captchas", "--html", "page.html")

    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    tree = parsed(page)
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)
    assert [h2.text for h2 in tree.iter("h2")] == ["<b>&.example"]
    marks = [g for g in tree.iter("g") if g.get("class") == "mark"]
    assert [(g.findtext("title") or "")[:16] for g in marks] == [hostile[:16], "f" * 16]
    curve = next(path for path in tree.iter("path") if path.get("class") == "s0")
    assert (curve.get("d") or "").count("L") > 80


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such dataset folder"),
        (lambda path: path.write_text("x"), "not a folder"),
        (lambda path: path.mkdir(), "holds no site's folder; give the folder that CAPTCHA_DATASET"),
    ],
)
def test_what_is_no_dataset_is_said_in_a_line(stats: Run, tmp_path, make, said):
    make(tmp_path / "place")
    done = stats("place")
    assert done.returncode == 1
    assert said in done.stderr
    assert "place" in done.stderr
    assert done.stderr.count("\n") == 1


def test_damaged_files_cost_what_they_hold_and_no_more(stats: Run, tmp_path):
    shop = Written(tmp_path / "captchas", "b\u00fccher.example")
    for i in range(3):
        shop.add(accepted=i > 0, time="\x1b[2J yesterday", confidence=10**400)
    with shop.attempts.open("a") as file:
        file.write('{"schema": 1}\n[[[\n{"schema": 1, "time"')
    (shop.folder / "attempts" / "folder.jsonl").mkdir()
    (shop.folder / "confirmed" / "folder.png").mkdir()

    done = stats("captchas/b%C3%BCcher.example")

    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split()[:3] == ["b\u00fccher.example", "3", "2"]
    assert "2 lines are no attempt" in done.stdout
    assert "its last line is torn" in done.stdout
    assert "\x1b" not in done.stdout
    (said,) = done.stderr.splitlines()  # a folder is no attempts file, whatever it is called
    assert said.startswith("cannot be read: captchas")
    assert "folder.png" in said


def test_a_site_that_cannot_be_read_does_not_hide_the_others(stats: Run, tmp_path):
    shop = Written(tmp_path / "captchas")
    shop.add(accepted=True, time="9999-12-31T23:59:59-23:59")
    broken = Written(tmp_path / "captchas", "broken.example")
    (broken.folder / "confirmed").rmdir()
    (broken.folder / "confirmed").write_text("no folder")

    done = stats("captchas", "--json")

    assert done.returncode == 1
    (site,) = json.loads(done.stdout)["sites"]
    assert (site["site"], site["answers"]["judged"]) == ("shop.example", 1)
    assert done.stderr.startswith("cannot be read: ")
    assert "broken.example/confirmed" in done.stderr


def test_what_is_uncertain_is_listed_best_first(stats: Run, tmp_path):
    shop = Written(tmp_path / "captchas")
    old = {"model": "1" * 16}
    old_one = shop.add(False, confidence=0.999, **old)
    solved_since = shop.add(False, image=b"solved", confidence=0.9, **old)
    coin_toss = shop.add(False, confidence=0.5)
    no_idea = shop.add(False, confidence=0.04)
    sure_mistake = shop.add(False, confidence=0.98)
    shop.add(True, "sure", confidence=0.9)
    guessed = shop.add(True, "luck", confidence=0.1)
    less = shop.add(True, "less", confidence=0.4)
    shop.add(True, "done", image=b"solved", confidence=0.8)
    unknown = shop.folder / "rejected" / "from_elsewhere.png"
    unknown.write_bytes(b"x")

    done = stats(str(tmp_path / "captchas"), "--uncertain")
    best = stats(str(tmp_path / "captchas"), "--uncertain", "2")

    assert done.stderr == ""
    expected = [sure_mistake, no_idea, coin_toss, old_one, unknown, guessed, less]
    assert done.stdout.splitlines() == list(map(str, expected))
    assert best.stdout.splitlines() == list(map(str, expected[:2]))
    assert str(solved_since) not in done.stdout


@pytest.mark.parametrize("keep_name", [True, False])
def test_a_listed_file_moved_to_confirmed_is_a_hand_label_that_outranks_the_site(
    stats: Run, tmp_path, keep_name
):
    shop = Written(tmp_path / "captchas")
    image = b"\x89PNG\r\n\x1a\nlooks like 7w2k"
    shop.add(False, "7w2h", image, confidence=0.8)
    listed = stats("captchas", "--uncertain").stdout.splitlines()
    rejected = tmp_path / listed[0]
    name = f"7w2k_{rejected.name}" if keep_name else "7w2k_x.png"
    rejected.rename(shop.folder / "confirmed" / name)
    shop.add(True, "7wzk", image, confidence=0.3)  # the site takes another one for right later
    shop.add(False, "7w2h", image)

    pairs, conflicts = confirmed_pairs(shop.folder)
    done = stats("captchas", "--uncertain")
    site = json.loads(stats("captchas", "--json").stdout)["sites"][0]

    assert [pair.label for pair in pairs] == ["7w2k"]
    assert conflicts == []
    assert done.stdout == ""
    assert site["images"]["by_hand"] == 1
    assert site["conflicts"] == []


def test_the_list_may_be_cut_off_by_its_reader(tmp_path):
    shop = Written(tmp_path / "captchas")
    for _ in range(2000):
        shop.add(accepted=False)
    words = [sys.executable, "-m", "scrapy", "captcha", "stats", ".", "--uncertain", "2000"]
    with subprocess.Popen(
        words, cwd=shop.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""


def test_a_number_of_images_is_asked_for_where_the_dataset_stands(scrapy: Run):
    done = scrapy("captcha", "stats", "--uncertain", "captchas")
    assert done.returncode == 2
    assert "the dataset goes before --uncertain" in done.stderr


def test_a_page_that_cannot_be_written_is_said_before_anything_is_read(stats: Run, tmp_path):
    Written(tmp_path / "captchas")
    done = stats("captchas", "--html", "missing/page.html")
    assert done.returncode == 1
    assert "expected a file in a writable folder" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_hundred_thousand_answers_take_little_memory(tmp_path):
    shop = Written(tmp_path / "captchas")
    with shop.attempts.open("w") as file:
        for i in range(100_000):
            attempt = {
                "schema": 1,
                "time": (START + timedelta(seconds=i)).isoformat(),
                "site": shop.key,
                "image": f"{i:064d}"[::-1],
                "guess": f"{i:06}",
                "confidence": 0.5,
                "model": f"{i // 30_000:016x}",
                "verdict": "accepted" if i % 3 else "rejected",
            }
            file.write(json.dumps(attempt) + "\n")
            name = attempt["image"][:16]
            name = f"confirmed/{i:06}_{name}" if i % 3 else f"rejected/{name}"
            (shop.folder / f"{name}.png").touch()
    code = (
        "import json, pathlib, scrapy_captcha.commands.stats as command;"
        "from scrapy_captcha.history import look_at;"
        "peak = lambda: int(pathlib.Path('/proc/self/status').read_text()"
        ".split('VmHWM:')[1].split()[0]);"
        "before = peak();"
        "history, _ = look_at(pathlib.Path('captchas/shop.example'));"
        "print(json.dumps([history.total.judged, peak() - before]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    judged, kilobytes = json.loads(done.stdout)
    assert judged == 100_000
    assert kilobytes < 100_000

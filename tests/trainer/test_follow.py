"""The process beside a crawl: its protocol, its end, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("keras")

from drawn_captchas import texts, write_folder

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.versions import check_place, current, promote


@contextmanager
def started(log, *options):
    with (
        log.open("w") as err,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "trainer", "follow", *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ask(process, **words):
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()


def hear(process):
    return json.loads(process.stdout.readline())


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "shop"
    write_folder(folder / "confirmed", texts(30))
    return folder


def test_it_answers_each_line_survives_bad_ones_and_ends_with_its_input(site, trained, tmp_path):
    wanted = {"dataset": str(site), "base": str(trained[0]), "out": str(site / "model")}
    with started(tmp_path / "log", "--base", trained[0]) as process:
        assert hear(process) == {"event": "ready"}
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        process.stdin.write("nonsense\n\n")
        ask(process, **wanted | {"dataset": str(tmp_path / "nowhere")})
        ask(process, **wanted)
        failed = [hear(process), hear(process)]
        assert [each["event"] for each in failed] == ["failed", "failed"]
        assert "got nonsense" in failed[0]["error"]
        assert "no such folder" in failed[1]["error"]
        if os.name != "nt":
            process.send_signal(signal.SIGINT)  # a terminal's, meant for the crawl
        said = hear(process)
        assert (said["event"], said["labels"], said["steps"]) == ("trained", 30, 120)
        promote(site / "model", said["version"])
        assert open_bundle(site / "model").hash == said["model"]
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == ""
    log = (tmp_path / "log").read_text()
    assert "learning from 30 labels, 120 steps" in log
    assert "Traceback" not in log


@pytest.mark.skipif(os.name == "nt", reason="nothing kills like SIGKILL there")
def test_killed_in_a_training_it_leaves_nothing_in_the_way(site, trained, tmp_path):
    out = shutil.copytree(trained[0], site / "model")
    before = current(out)
    with started(tmp_path / "log") as process:
        ask(process, dataset=str(site), base=str(out), out=str(out))
        assert hear(process) == {"event": "ready"}
        with (tmp_path / "log").open() as log:
            deadline = time.monotonic() + 120
            while "learning from 30 labels" not in log.read():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    check_place(out)
    assert current(out) == before
    assert open_bundle(out).manifest.name == "site"
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []

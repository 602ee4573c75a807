"""What ends the real command early: a line, an exit code, no traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

pytest.importorskip("keras")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent to a process group")


@contextmanager
def started(*command, options=()):
    with subprocess.Popen(
        [sys.executable, *options, "-m", "trainer", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process):
    """Send what a terminal sends to a command and all that it started; all of it has to end."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)  # its pipes close when the last of them has ended
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    return process.returncode, "\n".join(said)


def wait_for(stream, text):
    for line in stream:
        if text in line:
            return
    pytest.fail(f"{text!r} was never said")


def commands_of(group):
    """The command lines of a process group."""
    listed = subprocess.check_output(["ps", "-A", "-ww", "-o", "pgid=", "-o", "args="], text=True)
    lines = (line.split(maxsplit=1) for line in listed.splitlines())
    return [rest[0] for number, *rest in lines if int(number) == group and rest]


def test_in_the_first_second(folder, tmp_path):
    out = tmp_path / "out"
    with started("fit", "--dataset", folder, "--out", out, options=("-X", "importtime")) as process:
        wait_for(process.stderr, " argparse")  # that is one of the first imports
        assert interrupt(process) == (130, "interrupted: nothing was written")
    assert not out.exists()


def test_while_images_for_replay_are_drawn(folder, tmp_path):
    out = tmp_path / "out"
    with started("fit", "--dataset", folder, "--out", out, "--replay", "0.3") as process:
        wait_for(process.stdout, "images of")
        while not any("spawn_main" in command for command in commands_of(process.pid)):
            assert process.poll() is None
        assert interrupt(process) == (130, "interrupted: nothing was written")
    assert not out.exists()


def test_while_it_learns(folder, tmp_path):
    out = tmp_path / "out"
    with started("fit", "--dataset", folder, "--out", out) as process:
        wait_for(process.stdout, "epoch   1")
        assert interrupt(process) == (130, "interrupted: nothing was written")
    assert not out.exists()


def test_a_reader_of_the_output_that_leaves_is_no_error(trained, folder):
    with started("evaluate", "--dataset", folder, "--model", trained[0]) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("content", [None, "README.txt", "sub/1a8m.png"])
def test_an_empty_folder_is_refused_without_a_traceback(tmp_path, content):
    site = tmp_path / "site"
    site.mkdir()
    if content:
        (site / content).parent.mkdir(exist_ok=True)
        (site / content).write_bytes(b"")
    with started("fit", "--dataset", site, "--out", tmp_path / "out") as process:
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"error: {site} holds no labelled images: expected LABEL.png")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()

"""What ends the real command early: a line, an exit code, no traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

pytest.importorskip("keras")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent to a process group")


@contextmanager
def started(*command, **environment):
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", *map(str, command)],
        env={**os.environ, **environment},
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
    return process.returncode, err.strip()


def wait_for(stream, text):
    for line in stream:
        if text in line:
            return
    pytest.fail(f"{text!r} was never said")


def spawned(process):
    """The processes that a command has started to draw."""
    psutil = pytest.importorskip("psutil")
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    yield child


#: Has the command say when it begins to import its own parts, and wait there.
SLOW_IMPORT = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "trainer.cli":
            print("importing trainer.cli", flush=True)
            time.sleep(120)

sys.meta_path.insert(0, Slow())
"""


def test_while_it_imports(folder, tmp_path):
    out = tmp_path / "out"
    site = tmp_path / "slow"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW_IMPORT)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    with started("fit", "--dataset", folder, "--out", out, PYTHONPATH=path) as process:
        wait_for(process.stdout, "importing trainer.cli")
        assert interrupt(process) == (130, "interrupted")
    assert not out.exists()


def test_while_code_runs_that_is_made_of_text(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        SLOW_IMPORT.replace("time.sleep(120)", "exec('time.sleep(120)')")
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with started("fit", "--dataset", folder, PYTHONPATH=path) as process:
        wait_for(process.stdout, "importing trainer.cli")
        assert interrupt(process) == (130, "interrupted")


def test_while_images_for_replay_are_drawn(folder, tmp_path):
    out = tmp_path / "out"
    with started("fit", "--dataset", folder, "--out", out, "--replay", "0.3") as process:
        wait_for(process.stdout, "images of")
        deadline = time.monotonic() + 120
        while not any(spawned(process)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
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


def test_a_command_that_writes_as_it_goes_claims_nothing(tmp_path):
    out = tmp_path / "drawn"
    with started("synthesize", "--out", out, "--count", "100000") as process:
        deadline = time.monotonic() + 120
        while not (out.is_dir() and any(out.iterdir())):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert interrupt(process) == (130, "interrupted")

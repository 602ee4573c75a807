"""A base's training that is stopped, or that the disk refuses, loses as little as can be."""

from __future__ import annotations

import errno

import numpy as np
import pytest

pytest.importorskip("keras")

from scrapy_captcha.errors import CaptchaError, DatasetError
from trainer import archive, pretrain
from trainer.__main__ import main

PLAN = pretrain.Plan("four_head_compact", "01", (2, 2), minutes=5, seed=1, workers=0)


class Drawn:
    """In place of what draws: a few chunks, then the end that a test wants."""

    def __init__(self, end, chunks):
        self._end, self._chunks = end, chunks

    def __call__(self, **_):
        rng = np.random.default_rng(0)
        for _ in range(self._chunks):
            labels = rng.integers(0, 2, (128, 2), np.int32)
            yield rng.integers(0, 256, (128, 32, 90), np.uint8), labels
        raise self._end


@pytest.fixture
def stops(tmp_path, monkeypatch):
    """Train until it is stopped by what a test wants; returns what was said."""

    class Blank:
        def __init__(self, charset, length):
            pass

        def chunk(self, seed, index, count, busy):
            return np.zeros((8, 32, 90), np.uint8), np.zeros((8, 2), np.int32)

    monkeypatch.setattr(pretrain, "Synthesizer", Blank)

    def run(end, every=150.0, chunks=2):
        said = []
        monkeypatch.setattr(pretrain.synthesis, "chunks", Drawn(end, chunks))
        with pytest.raises(type(end)) as caught:
            pretrain.pretrain(
                out=tmp_path / "base",
                charset=PLAN.charset,
                length=PLAN.length,
                minutes=PLAN.minutes,
                report=said.append,
                every=every,
            )
        return said, str(caught.value)

    return run


def refuse(monkeypatch):
    def full(file, **_):
        file.write(b"a part of it")
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(archive.np, "savez", full)


def steps_kept(path):
    training = pretrain.Training(PLAN)
    training.restore(path)
    return training.step


def test_ctrl_c_keeps_what_was_learnt_and_the_same_command_goes_on(stops, tmp_path):
    kept = tmp_path / "base.checkpoint.npz"
    _, message = stops(KeyboardInterrupt())
    assert message == f"the same command goes on from {kept}"
    assert steps_kept(kept) == 2
    said, message = stops(KeyboardInterrupt(), chunks=0)
    assert said[0].startswith(f"going on from {kept}: step 2")
    assert message == f"the same command goes on from {kept}"
    assert steps_kept(kept) == 2
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


def test_when_a_process_that_draws_ends_what_was_learnt_is_kept(stops, tmp_path):
    said, message = stops(CaptchaError("a process that draws captchas ended with code -9"))
    assert message == "a process that draws captchas ended with code -9"
    kept = tmp_path / "base.checkpoint.npz"
    assert said == [f"the same command goes on from {kept}"]
    assert steps_kept(kept) == 2


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_no_rest(
    tmp_path, monkeypatch
):
    kept = tmp_path / "base.checkpoint.npz"
    training = pretrain.Training(PLAN)
    training.save(kept)
    content = kept.read_bytes()
    refuse(monkeypatch)
    with pytest.raises(DatasetError) as caught:
        training.save(kept)
    message = str(caught.value)
    assert message.startswith(f"cannot write the checkpoint {kept}: File too large (it takes ")
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == content


def test_training_goes_on_where_checkpoints_cannot_be_written(stops, tmp_path, monkeypatch):
    refuse(monkeypatch)
    said, message = stops(KeyboardInterrupt(), every=0.0)
    warnings = [line for line in said if line.startswith("cannot write the checkpoint")]
    assert len(warnings) == 2
    assert all(line.endswith("going on without") for line in warnings)
    assert message.startswith(f"cannot write the checkpoint {tmp_path / 'base.checkpoint.npz'}")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_is_refused_before_a_network_is_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretrain, "Training", lambda plan: pytest.fail("it was built"))
    command = ["pretrain", "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert main([*command, "--charset", "漢字"]) == 2
    assert "cannot draw 漢 字: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

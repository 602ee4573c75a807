from __future__ import annotations

import numpy as np
import pytest

from trainer import fonts, replay
from trainer.corpus import Task

TASK = Task("é0a1b", 4, 3, "lower")


class Sent(list):
    def send(self, chunk):
        self.append(chunk)


@pytest.fixture(scope="module")
def drawn_here():
    sent = Sent()
    replay.draw(sent, 5, 30, "0a1b", (3, 4))
    if isinstance(sent[0], str):
        pytest.skip(sent[0])
    return sent


def test_the_same_seed_draws_the_same_in_another_process_in_the_classes_of_the_task(drawn_here):
    with replay.drawing(TASK, 5, 0.0) as none:
        assert none is None
    drawing = replay.Drawing(TASK, 5, 30)
    try:
        drawn = drawing.take(300)
    finally:
        drawing.stop()
    assert drawn.problem == ""
    ((pixels, classes),) = drawn_here
    assert drawn.images.shape == (30, 32, 90)
    assert drawn.images == pytest.approx(pixels / np.float32(255), abs=1e-3)
    # é, the first of the task's classes, cannot be drawn; 5 is its blank
    assert drawn.classes.tolist() == (classes + 1).tolist()
    assert set(drawn.classes[:, :3].ravel()) <= {1, 2, 3, 4}
    assert 5 in drawn.classes[:, 3]


def test_what_is_not_drawn_in_time_is_left_out_with_a_line_on_it():
    drawing = replay.Drawing(TASK, 0)
    drawn = drawing.take(0.0)
    drawing.stop()
    assert drawn.images.shape == (0, 32, 90)
    assert drawn.problem == "0 of 2000 images were drawn in 0 s"


def test_a_charset_that_no_typeface_is_sure_to_have_is_said_so():
    drawing = replay.Drawing(Task("éü0", 2, 2, "lower"), 0)
    drawn = drawing.take(60)
    drawing.stop()
    assert "nothing in the charset éü0 can be drawn" in drawn.problem
    assert drawn.classes.shape == (0, 2)


def test_without_typefaces_the_process_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "FOLDERS", (tmp_path,))
    sent = Sent()
    replay.draw(sent, 0, 10, "01", (2, 2))
    assert sent == [f"no typefaces in {tmp_path}"]

"""A fit replaces what is there only when it is shown to be better."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("keras")

import keras
from drawn_captchas import texts, write_folder

from scrapy_captcha.bundle import Manifest, open_bundle
from scrapy_captcha.versions import current, previous
from trainer.__main__ import main
from trainer.export import pack
from trainer.finish import SEEN
from trainer.student import task_of
from trainer.transfer import fresh


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Labels enough for a holdout."""
    return write_folder(tmp_path_factory.mktemp("many") / "site", texts(240, seed=9))


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory):
    """A bundle that has learnt nothing."""
    keras.utils.set_random_seed(0)
    manifest = Manifest("site", "0147", 2, 2, "four_head_compact")
    out = tmp_path_factory.mktemp("ignorant") / "model"
    pack(fresh("four_head_compact", task_of(manifest)), manifest).write(out)
    return out


def fit(images, base, out, *more):
    command = ["fit", "--dataset", images, "--base", base, "--out", out, "--epochs", "1", *more]
    return main([str(word) for word in command])


def test_a_better_one_is_promoted_and_can_be_taken_back(many, ignorant, trained, tmp_path, capsys):
    out = shutil.copytree(ignorant, tmp_path / "model")
    before = current(out)
    assert fit(many, trained[0], out) == 0
    said = capsys.readouterr().out
    assert "written  " in said
    assert "that the challenger alone reads right" in said
    after = current(out)
    assert after != before
    assert previous(out) == [before]
    assert main(["fit", "--rollback", "--out", str(out)]) == 0
    assert before in capsys.readouterr().out
    assert current(out) == before
    assert main(["fit", "--rollback", "--out", str(out)]) == 2
    assert "has no version before" in capsys.readouterr().err


def test_one_that_is_no_better_is_not_written_and_the_table_says_why(
    many, trained, tmp_path, capsys
):
    out = shutil.copytree(trained[0], tmp_path / "model")
    before = {path.name for path in out.iterdir()}
    page = tmp_path / "page.html"
    assert fit(many, trained[0], out, "--report", page) == 3
    said = capsys.readouterr().out
    assert "exact match on" in said
    assert "better at 0.05 or less" in said
    assert "not written: it is not shown to be better than the present one" in said
    assert {path.name for path in out.iterdir()} == before
    assert not page.exists()
    assert list((tmp_path / "cache").rglob("*.npz")) == []


def test_without_a_holdout_it_is_written_and_a_line_says_that_nothing_was_compared(
    folder, ignorant, trained, tmp_path, capsys
):
    out = shutil.copytree(ignorant, tmp_path / "model")
    before = current(out)
    assert fit(folder, trained[0], out) == 0
    assert "not compared with the present version" in capsys.readouterr().out
    assert previous(out) == [before]


def test_images_that_the_champion_was_trained_on_do_not_count(
    many, ignorant, trained, tmp_path, capsys
):
    out = shutil.copytree(ignorant, tmp_path / "model")
    version = open_bundle(out)
    marks = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in many.iterdir()]
    knowing = replace(version.manifest, provenance={SEEN: marks})
    (version.folder / "bundle.json").write_text(knowing.to_json(), encoding="utf-8")
    assert fit(many, trained[0], out) == 0
    assert "not compared with the present version" in capsys.readouterr().out


def test_a_damaged_champion_defends_nothing(many, trained, tmp_path, capsys):
    out = shutil.copytree(trained[0], tmp_path / "model")
    (open_bundle(out).folder / "model.tflite").write_bytes(b"")
    assert fit(many, trained[0], out) == 0
    assert "challenger" not in capsys.readouterr().out


def test_going_back_and_training_exclude_each_other(tmp_path, capsys):
    for words in ([], ["--rollback", "--dataset", "somewhere"]):
        with pytest.raises(SystemExit) as refused:
            main(["fit", "--out", str(tmp_path / "out"), *words])
        assert refused.value.code == 2
    assert main(["fit", "--rollback", "--out", str(tmp_path / "out")]) == 2
    assert "no current version" in capsys.readouterr().err


def test_two_fits_of_the_same_images_with_the_same_seed_give_the_same_model(
    folder, trained, tmp_path
):
    outs = [tmp_path / name for name in ("first", "second", "other")]
    for out, seed in zip(outs, ("5", "5", "6"), strict=True):
        assert fit(folder, trained[0], out, "--seed", seed) == 0
    first, second, other = (open_bundle(out).hash for out in outs)
    assert first == second
    assert first != other

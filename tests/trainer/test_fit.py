from __future__ import annotations

import json
import shutil
import sys

import pytest

pytest.importorskip("keras")

from drawn_captchas import captcha, texts, write_folder

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.recognizer import Recognizer
from trainer import checkpoint, plan, progress
from trainer.__main__ import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images") / "site", texts(80))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A bundle trained from scratch, and what was said meanwhile."""
    out = tmp_path_factory.mktemp("models") / "site"
    said = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        patched.setattr(progress.Lines, "say", lambda _, text: said.append(text))
        command = ["fit", "--dataset", str(folder), "--out", str(out), "--minutes", "5"]
        assert main([*command, "--epochs", "30", "--seed", "3"]) == 0
    return out, said


def test_a_reader_trained_from_scratch_reads_its_images_through_litert(trained, folder):
    out, _ = trained
    recognizer = Recognizer.load(out)
    assert recognizer.manifest.charset == "0147"
    assert recognizer.manifest.length == 2
    files = sorted(folder.iterdir())
    right = [recognizer.read(file.read_bytes()).text == file.name[:2] for file in files]
    assert sum(right) >= 0.95 * len(files)


def test_below_200_labels_all_are_trained_on_and_the_manifest_says_so(trained):
    out, said = trained
    assert "fewer than 200: all are trained on, for a fixed time, no holdout" in said[0]
    epochs = [line for line in said if line.startswith("epoch")]
    assert len(epochs) == 30
    assert not any("holdout" in line for line in epochs)
    manifest = open_bundle(out).manifest
    assert manifest.provenance["trained_on"] == 80
    assert manifest.provenance["held_out"] == 0
    assert len(manifest.golden) == 4


def test_a_finished_fit_leaves_nothing_but_the_version(trained):
    out, _ = trained
    assert {path.name for path in out.iterdir()} == {"CURRENT", open_bundle(out).folder.name}
    assert list((out.parent / "cache").rglob("*.npz")) == []


def test_evaluate_prints_one_json_object_and_counts_unreadable_images_as_errors(
    trained, folder, tmp_path, capsys
):
    shutil.copytree(folder, tmp_path / "test")
    (tmp_path / "test" / "00_torn.png").write_bytes(captcha("00")[:80])
    command = ["evaluate", "--dataset", str(tmp_path / "test"), "--model", str(trained[0])]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 81
    assert 0.93 < found["exact_match"] <= 80 / 81 + 1e-4
    low, high = found["interval_95"]
    assert low < found["exact_match"] < high
    assert len(found["per_position"]) == 2
    assert found["latency_ms"] > 0
    assert found["model_bytes"] < 3 << 20
    assert [name.endswith("00_torn.png") for name in found["unreadable"]] == [True]
    assert main([*command, "--charset", "0147", "--length", "2"]) == 0
    table = capsys.readouterr().out
    assert "exact match" in table
    assert "00_torn.png" in table


def test_a_charset_that_the_model_cannot_read_is_bad_input_for_evaluate(trained, folder, capsys):
    command = ["evaluate", "--dataset", str(folder), "--model", str(trained[0])]
    assert main([*command, "--charset", "01z"]) == 2
    assert "it does not know 'z'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def longer(trained, tmp_path_factory):
    """A fit from that bundle to three characters of another charset, stopped once and resumed."""
    place = tmp_path_factory.mktemp("longer")
    write_folder(place / "images", texts(230, "1479", 3, seed=5))
    said = []
    command = ["fit", "--dataset", str(place / "images"), "--base", str(trained[0])]
    command += ["--out", str(place / "model"), "--charset", "1479", "--length", "3"]
    command += ["--minutes", "5", "--epochs", "8", "--head-weights", "1,1.2,1"]

    def stop(_, epoch):
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patched.setattr(progress.Lines, "say", lambda _, text: said.append(text))
        patched.setattr(checkpoint, "EVERY", 0.0)
        patched.setattr(progress.Lines, "epoch", stop)
        interrupted = main(command)
        left = (place / "model").exists()
        patched.undo()
        patched.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patched.setattr(progress.Lines, "say", lambda _, text: said.append(text))
        finished = main(command)
    return place, said, (interrupted, left, finished)


def test_ctrl_c_writes_nothing_and_the_same_command_goes_on_from_there(longer):
    _, said, (interrupted, left, finished) = longer
    assert interrupted == 130
    assert not left
    assert finished == 0
    assert "going on after epoch 2 of a fit that was stopped" in said
    numbers = [int(line.split()[1]) for line in said if line.startswith("epoch")]
    assert numbers == [3, 4, 5, 6, 7, 8]


def test_with_200_labels_each_epoch_is_measured_on_the_holdout(longer):
    place, said, _ = longer
    epochs = [line for line in said if line.startswith("epoch")]
    assert all("holdout exact match" in line for line in epochs)
    assert any("with new heads" in line for line in said)
    manifest = open_bundle(place / "model").manifest
    held = manifest.provenance["held_out"]
    assert 10 <= held <= 40
    assert manifest.provenance["trained_on"] + held == 230
    assert manifest.accuracy["n"] == held
    assert manifest.calibration["n"] == held
    assert manifest.provenance["base"]["name"] == "site"
    assert (manifest.charset, manifest.length) == ("1479", 3)


def refused(capsys, *command):
    """The message of a fit that was refused."""
    assert main(["fit", *map(str, command)]) == 2
    return capsys.readouterr().err


def test_bad_input_is_refused_with_names_and_counts_before_anything_is_written(
    tmp_path, trained, folder, capsys
):
    out, base = tmp_path / "out", str(trained[0])
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "letters", ["ab", "cd", "01"])
    write_folder(tmp_path / "long", ["0123", "01", "10"])
    fit = "--out", out, "--dataset"
    assert "holds no labelled images" in refused(capsys, *fit, tmp_path / "empty")
    assert "no such folder" in refused(capsys, *fit, tmp_path / "nowhere")
    message = refused(capsys, *fit, tmp_path / "letters", "--base", base)
    assert "2 of 3 labels have characters (abcd) outside the charset 0147" in message
    assert "ab_0000.png, " in message
    message = refused(capsys, *fit, tmp_path / "long", "--base", base, "--charset", "0123")
    assert "1 of 3 labels are not 2 characters long" in message
    assert "0123_0000.png" in message
    assert "no model" in refused(capsys, *fit, folder, "--base", tmp_path / "nowhere")
    message = refused(capsys, *fit, folder, "--base", base, "--architecture", "four_head_vgg")
    assert "leave out --architecture" in message
    assert "expected 2 head weights" in refused(capsys, *fit, folder, "--head-weights", "1,1,1")
    assert "expected one of four_head" in refused(capsys, *fit, folder, "--architecture", "none")
    assert not out.exists()


def test_a_base_for_another_preprocessing_or_with_damaged_weights_is_refused(
    tmp_path, trained, folder, capsys
):
    for name, change in [("old", "preprocessing"), ("damaged", "weights")]:
        version = shutil.copytree(open_bundle(trained[0]).folder, tmp_path / name)
        if change == "preprocessing":
            manifest = json.loads((version / "bundle.json").read_text(encoding="utf-8"))
            manifest["preprocessing"] = "luma-0"
            (version / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
        else:
            weights = bytearray((version / "weights.keras").read_bytes())
            weights[1000] ^= 1
            (version / "weights.keras").write_bytes(weights)
    fit = "--dataset", folder, "--out", tmp_path / "out", "--base"
    assert "expected preprocessing" in refused(capsys, *fit, tmp_path / "old")
    assert "sha256" in refused(capsys, *fit, tmp_path / "damaged")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_no_bundle_and_a_full_disk_are_refused(
    tmp_path, folder, capsys, monkeypatch
):
    full = write_folder(tmp_path / "full", ["00"])
    assert "not a bundle" in refused(capsys, "--dataset", folder, "--out", full)
    monkeypatch.setattr(plan, "FREE_BYTES", 1 << 62)
    message = refused(capsys, "--dataset", folder, "--out", tmp_path / "deep" / "out")
    assert "too little disk" in message
    assert not (tmp_path / "deep").exists()


def test_without_tensorflow_the_message_says_what_to_install(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    message = refused(capsys, "--dataset", folder, "--out", tmp_path / "out")
    assert "pip install 'scrapy-captcha[train]'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--length", "8-3"),
        ("--length", "four"),
        ("--charset", "aaaa"),
        ("--head-weights", "1,-1"),
        ("--minutes", "nan"),
        ("--epochs", "0"),
        ("--seed", "-1"),
    ],
)
def test_a_malformed_option_is_a_usage_error(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--dataset", str(tmp_path), "--out", str(tmp_path / "out"), option, value])
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err

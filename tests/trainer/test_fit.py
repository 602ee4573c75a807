from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")

from drawn_captchas import captcha, texts, write_folder

from scrapy_captcha import bundle, versions
from scrapy_captcha.bundle import MODEL, WEIGHTS, open_bundle
from scrapy_captcha.recognizer import Recognizer
from trainer import checkpoint, plan, progress, replay
from trainer import fit as fit_module
from trainer.__main__ import main


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
    assert "fewer than 200 labels: all are trained on, for a fixed time, no holdout" in said[0]
    epochs = [line for line in said if line.startswith("epoch")]
    assert len(epochs) == 30
    assert not any("holdout" in line for line in epochs)
    manifest = open_bundle(out).manifest
    assert manifest.provenance["trained_on"] == 80
    assert manifest.provenance["held_out"] == 0
    assert len(manifest.golden) == 4


def test_a_finished_fit_leaves_nothing_but_the_version_and_the_report(trained):
    out, _ = trained
    version = open_bundle(out).folder.name
    assert {path.name for path in out.iterdir()} == {"CURRENT", version, "report.html"}
    assert list((out.parent / "cache").rglob("*.npz")) == []


@pytest.fixture(scope="module")
def longer(trained, tmp_path_factory):
    """A fit from that bundle to three characters of another charset, stopped once and resumed."""
    place = tmp_path_factory.mktemp("longer")
    write_folder(place / "images", texts(230, "1479", 3, seed=5))
    said = []
    command = ["fit", "--dataset", str(place / "images"), "--base", str(trained[0])]
    command += ["--out", str(place / "model"), "--charset", "1479", "--length", "3"]
    command += ["--minutes", "5", "--epochs", "8", "--head-weights", "1,1.2,1"]
    command += ["--class-weights", "balanced", "--label-smoothing", "0.1", "--replay", "0.25"]
    command += ["--report", str(place / "page.html")]

    def stop(_, epoch):
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patched.setattr(progress.Lines, "say", lambda _, text: said.append(text))
        patched.setattr(checkpoint, "EVERY", 0.0)
        patched.setattr(replay, "POOL", 100)
        patched.setattr(progress.Lines, "epoch", stop)
        interrupted = main(command)
        left = (place / "model").exists()
        patched.undo()
        patched.setattr(replay, "POOL", 100)
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


def test_the_user_is_told_that_a_stopped_fit_can_go_on(longer):
    said = longer[1]
    assert "stopped; the same command will go on from the last checkpoint" in said


def test_the_report_of_a_fit_shows_curves_the_holdout_and_the_settings(longer):
    page = (longer[0] / "page.html").read_text(encoding="utf-8")
    held = open_bundle(longer[0] / "model").manifest.provenance["held_out"]
    assert f"Measured on {held} images held out." in page
    for part in ("loss over step", "exact match on the holdout over step", "Calibration"):
        assert part in page
    for cell in ("1, 1.2, 1", "<td>label smoothing</td><td>0.1</td>", "<td>tensorflow</td>"):
        assert cell in page
    assert not (longer[0] / "model" / "report.html").exists()


def test_without_a_holdout_the_report_says_so_and_claims_nothing(trained):
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "Fewer than 200 labels: nothing was held out, so nothing is measured." in page
    assert "Shown on 80 images that it was trained on." in page
    assert "Measured" not in page
    assert "loss over step" in page
    assert "Still wrong after training" in page
    assert "Calibration" not in page


def test_the_manifest_says_how_the_model_file_compares_with_keras(trained, longer):
    for out, n in [(trained[0], 80), (longer[0] / "model", None)]:
        made = open_bundle(out).manifest.provenance
        exact = made["export"]["exact_match"]
        assert exact["n"] == (n or made["held_out"])
        assert abs(exact["litert"] - exact["keras"]) <= max(0.002, 1 / exact["n"]) + 1e-4


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
    assert not out.exists()


def test_images_with_nothing_to_tell_apart_or_labels_too_long_are_refused(tmp_path, capsys):
    write_folder(tmp_path / "one", ["00", "00", "00"])
    write_folder(tmp_path / "same", ["0", "00", "000"])
    write_folder(tmp_path / "long", ["01", "01" * 17])
    (tmp_path / "torn").mkdir()
    for name in ("00", "11", "01"):
        (tmp_path / "torn" / f"{name}.png").write_bytes(captcha(name)[:70])
    fit = "--out", tmp_path / "out", "--dataset"
    assert "all 3 images have the one label '00'" in refused(capsys, *fit, tmp_path / "one")
    assert "no other character than '0'" in refused(capsys, *fit, tmp_path / "same")
    message = refused(capsys, *fit, tmp_path / "long")
    assert "at most 32 characters, 1 of 2 are longer" in message
    assert "01_0000.png" not in message
    assert "01_0001.png" in message
    message = refused(capsys, *fit, tmp_path / "torn")
    assert "left out 3 files (unreadable or damaged)" in message
    assert "00.png, " in message
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_said_before_anything_else(trained, tmp_path, capsys, monkeypatch):
    write_folder(tmp_path / "site", texts(6))
    first, second, *_ = sorted((tmp_path / "site").iterdir())
    (tmp_path / "site" / f"{first.name[:2]}_copy.png").write_bytes(first.read_bytes())
    (tmp_path / "site" / "zz_other.png").write_bytes(second.read_bytes())
    (tmp_path / "site" / "11_torn.png").write_bytes(captcha("11")[:80])
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as far as this goes
    assert main(["fit", "--dataset", str(tmp_path / "site"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().out
    assert "left out 1 file (unreadable or damaged)" in said
    assert "left out 1 file (second copies of an image)" in said
    assert "left out 2 files (one image under two labels)" in said
    assert "zz_other.png" in said


def test_a_full_disk_at_the_end_leaves_no_half_a_bundle_and_the_training_is_not_lost(
    trained, folder, tmp_path, capsys, monkeypatch
):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(versions, "_write", full)
    options = "--dataset", folder, "--base", trained[0], "--out", tmp_path / "out", "--epochs", "1"
    assert "No space left on device" in refused(capsys, *options)
    assert list((tmp_path / "out").iterdir()) == []
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["fit", *map(str, options)]) == 0
    said = capsys.readouterr().out
    assert "going on after epoch 1 of a fit that was stopped" in said
    assert "epoch   2" not in said
    assert Recognizer.load(tmp_path / "out").manifest.provenance["steps"] > 0
    assert not kept.exists()


def test_a_report_that_cannot_be_written_is_refused_before_training(tmp_path, folder, capsys):
    fit = "--dataset", folder, "--out", tmp_path / "out", "--report"
    for place in (tmp_path / "nowhere" / "page.html", tmp_path):
        assert "cannot write the report" in refused(capsys, *fit, place)
    assert not (tmp_path / "out").exists()


def test_weights_for_characters_that_are_not_read_are_refused(tmp_path, folder, capsys):
    (tmp_path / "weights.json").write_text('{"0": 2, "z": 3}', encoding="utf-8")
    fit = "--dataset", folder, "--out", tmp_path / "out", "--class-weights"
    assert "got some of z" in refused(capsys, *fit, tmp_path / "weights.json")


def test_a_base_for_another_preprocessing_or_with_damage_is_refused_before_training(
    tmp_path, trained, folder, capsys, monkeypatch
):
    monkeypatch.setattr(fit_module, "import_tensorflow", lambda: pytest.fail("it went on"))
    for name, change in [("old", None), ("weights", WEIGHTS), ("model", MODEL)]:
        version = shutil.copytree(open_bundle(trained[0]).folder, tmp_path / name)
        if change is None:
            manifest = json.loads((version / "bundle.json").read_text(encoding="utf-8"))
            manifest["preprocessing"] = "luma-0"
            (version / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
        else:
            content = bytearray((version / change).read_bytes())
            content[1000] ^= 1
            (version / change).write_bytes(content)
    fit = "--dataset", folder, "--out", tmp_path / "out", "--base"
    assert "expected preprocessing" in refused(capsys, *fit, tmp_path / "old")
    for name in ("weights", "model"):
        assert "sha256" in refused(capsys, *fit, tmp_path / name)
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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses even root")
def test_a_folder_that_refuses_files_is_not_taken_for_a_full_disk(folder, capsys):
    message = refused(capsys, "--dataset", folder, "--out", "/proc/out")
    assert "cannot write a bundle to /proc/out: /proc is not a writable folder" in message


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
        ("--charset", "abca"),
        ("--architecture", "four_heads"),
        ("--head-weights", "1,1e300"),
        ("--head-weights", "1,-1"),
        ("--minutes", "nan"),
        ("--epochs", "0"),
        ("--seed", "-1"),
        ("--replay", "1"),
        ("--label-smoothing", "nan"),
        ("--class-weights", "some"),
    ],
)
def test_a_malformed_option_is_a_usage_error(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--dataset", str(tmp_path), "--out", str(tmp_path / "out"), option, value])
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"0": 1%s}' % ("0" * 400), '{"0": 1e300}', "[" * 100_000])
def test_weights_that_no_loss_can_hold_are_a_usage_error(tmp_path, capsys, content):
    (tmp_path / "weights.json").write_text(content, encoding="utf-8")
    command = ["fit", "--dataset", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--class-weights", str(tmp_path / "weights.json")])
    assert caught.value.code == 2
    assert "expected none, balanced, or a JSON file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--architecture", "resnet"), "expected one of four_head_compact"),
        (("--charset", "0120"), "each but once"),
    ],
)
def test_base_training_refuses_malformed_options(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", "--out", str(tmp_path / "out"), "--minutes", "1", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_bundle_that_nobody_could_open_is_refused_before_training(
    tmp_path, folder, capsys, monkeypatch
):
    monkeypatch.setattr(fit_module, "import_tensorflow", lambda: pytest.fail("it went on"))
    monkeypatch.setattr(bundle, "MAX_MANIFEST_BYTES", 100)
    message = refused(capsys, "--dataset", folder, "--out", tmp_path / "out")
    assert "expected a bundle.json of at most 100 bytes" in message


def test_an_unknown_architecture_of_a_base_is_a_clear_error(tmp_path, trained, folder, capsys):
    version = shutil.copytree(open_bundle(trained[0]).folder, tmp_path / "newer")
    manifest = json.loads((version / "bundle.json").read_text(encoding="utf-8"))
    manifest["architecture"] = "four_head_next"
    (version / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    message = refused(capsys, "--dataset", folder, "--out", tmp_path / "out", "--base", version)
    assert "expected one of four_head_compact" in message
    assert "got 'four_head_next'" in message

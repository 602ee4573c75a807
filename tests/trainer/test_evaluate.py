from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("keras")

from drawn_captchas import captcha, write_folder

from scrapy_captcha.recognizer import Recognition
from trainer.__main__ import main
from trainer.evaluate import score


def readings(*texts, confidence=0.9):
    return [Recognition(text, confidence, ()) for text in texts]


def test_look_alikes_count_as_one_only_in_the_merged_exact_match():
    labels = ["a0", "o1", "b2", "c3"]
    found = score([*readings("ao", "0l", "b2"), None], labels, ("0o", "1il"))
    assert (found.hits, found.merged_hits) == (1, 3)
    assert found.as_dict()["exact_match"] == 0.25
    assert found.as_dict()["exact_match_merged"] == 0.75
    assert "exact_match_merged" not in score(readings("a0"), ["a0"]).as_dict()


def test_confidences_that_are_far_off_are_named_with_what_chance_explains():
    labels = ["00"] * 200
    honest = score(readings(*["00"] * 180, *["11"] * 20), labels)
    assert honest.calibration_error == pytest.approx(0, abs=1e-9)
    assert honest.calibration_warning is None
    boastful = score(readings(*["00"] * 120, *["11"] * 80), labels)
    assert boastful.calibration_error == pytest.approx(0.3)
    assert "0.3000, more than 0.03" in boastful.calibration_warning
    assert 0.005 < boastful.chance_error < 0.03


def test_evaluate_prints_one_json_object_and_counts_unreadable_images_as_errors(
    trained, folder, tmp_path, capsys
):
    shutil.copytree(folder, tmp_path / "test")
    (tmp_path / "test" / "00_torn.png").write_bytes(captcha("00")[:80])
    command = ["evaluate", "--dataset", str(tmp_path / "test"), "--model", str(trained[0])]
    assert main([*command, "--json", "--merge", "01,47"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 81
    assert 0.93 < found["exact_match"] <= 80 / 81 + 1e-4
    assert found["exact_match"] <= found["exact_match_merged"] < 1
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


def test_labels_that_the_model_can_never_read_are_errors_that_are_named(trained, tmp_path, capsys):
    write_folder(tmp_path / "site", ["01", "0z", "014"])
    command = ["evaluate", "--dataset", str(tmp_path / "site"), "--model", str(trained[0])]
    assert main(command) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith("beyond the model"))
    assert "2: " in row
    assert "0z_0001.png" in row
    assert "014_0002.png" in row


def test_evaluate_writes_the_report_of_any_bundle_and_dataset(trained, folder, tmp_path, capsys):
    command = ["evaluate", "--dataset", str(folder), "--model", str(trained[0])]
    assert main([*command, "--merge", "0o", "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Measured on 80 images." in page
    assert "Calibration" in page
    assert "look-alikes merged" in page
    assert "loss over step" not in page
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]
    capsys.readouterr()
    assert main([*command, "--html", str(tmp_path / "nowhere" / "page.html")]) == 2
    assert "cannot write the report" in capsys.readouterr().err


@pytest.mark.parametrize("groups", ["0", "0o,", "0o,1o"])
def test_groups_that_make_no_sense_are_a_usage_error(capsys, groups):
    with pytest.raises(SystemExit):
        main(["evaluate", "--dataset", ".", "--model", "alnum4", "--merge", groups])
    assert "groups of characters like 0o,1il" in capsys.readouterr().err


def test_a_charset_that_the_model_cannot_read_is_bad_input_for_evaluate(trained, folder, capsys):
    command = ["evaluate", "--dataset", str(folder), "--model", str(trained[0])]
    assert main([*command, "--charset", "01z"]) == 2
    assert "it does not know 'z'" in capsys.readouterr().err

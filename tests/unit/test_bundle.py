"""A model on disk is used only when it is what its manifest says."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from scrapy_captcha import bundle as module
from scrapy_captcha.bundle import (
    CURRENT,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_GOLDEN,
    MAX_MANIFEST_BYTES,
    MODEL,
    WEIGHTS,
    Golden,
    Manifest,
    is_bundle,
    open_bundle,
    resolve,
    safe_name,
    shipped_names,
)
from scrapy_captcha.errors import BundleError
from scrapy_captcha.versions import write_version

if TYPE_CHECKING:
    from pathlib import Path

FILES = {MODEL: b"model", WEIGHTS: b"weights"}
GOLDEN = Golden(b"\x89PNG", "ab", ((0.5, 0.5), (0.25, 0.75)))


def manifest(**changes: Any) -> Manifest:
    made = Manifest("trial", "ab", length=2, min_length=2, architecture="four_head_compact")
    return replace(made, **changes)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "trial"


def test_what_is_written_can_be_read(out: Path) -> None:
    written = manifest(
        temperature=1.5,
        accuracy={"exact_match": 0.5, "n": 10},
        provenance={"seed": 1, "fonts": ["a", "ü"]},
        golden=(GOLDEN,),
    )
    version = write_version(out, written, FILES)
    assert version.parent == out
    bundle = open_bundle(out)
    assert bundle.folder == version
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert replace(bundle.manifest, files={}) == written
    assert bundle.hash == hashlib.sha256(b"model").hexdigest()[:16]
    assert sorted(path.name for path in version.iterdir()) == [MANIFEST, MODEL, WEIGHTS]


def test_a_manifest_that_could_not_be_opened_is_not_written(out: Path) -> None:
    rows = tuple(tuple([0.5] * 2) for _ in range(2))
    golden = tuple(Golden(bytes(200_000), "ab", rows) for _ in range(4))
    with pytest.raises(BundleError, match=f"at most {MAX_MANIFEST_BYTES} bytes, got 1"):
        write_version(out, manifest(golden=golden), FILES)
    assert not out.exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", ".hidden", "", "a\\b"])
def test_no_file_is_written_outside_of_its_version(out: Path, name: str) -> None:
    with pytest.raises(BundleError, match="file names without folders"):
        write_version(out, manifest(), {**FILES, name: b"x"})
    assert not out.exists()


# -- damage


def damaged(out: Path, change: Any) -> Path:
    """A bundle whose manifest has been changed by a function on its JSON."""
    version = write_version(out, manifest(golden=(GOLDEN,)), FILES)
    data = json.loads((version / MANIFEST).read_text())
    change(data)
    (version / MANIFEST).write_text(json.dumps(data))
    return out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"Model", "does not have the sha256"),
        (b"mod", "expected 5 bytes in .*, got 3"),
        (b"model and more", "expected 5 bytes in .*, got 14"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_not_the_one_described_is_refused(
    out: Path, content: bytes | None, complaint: str
) -> None:
    version = write_version(out, manifest(), FILES)
    if content is None:
        (version / MODEL).unlink()
    else:
        (version / MODEL).write_bytes(content)
    bundle = open_bundle(out)
    with pytest.raises(BundleError, match=complaint):
        bundle.read(MODEL)
    assert bundle.read(WEIGHTS) == b"weights"


def test_a_file_that_no_manifest_lists_is_refused(out: Path) -> None:
    version = write_version(out, manifest(), FILES)
    (version / "extra.py").write_text("import os")
    with pytest.raises(BundleError, match=r"lists no file extra\.py"):
        open_bundle(out).read("extra.py")


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "..", "a/b", "C:\\x"])
def test_a_manifest_cannot_name_files_elsewhere(out: Path, name: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["files"][name] = {"sha256": "0" * 64, "bytes": 1}

    with pytest.raises(BundleError, match="file names without folders"):
        open_bundle(damaged(out, change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(preprocessing="luma-1"), "preprocessing 'contrast-1'.*retrain"),
        (lambda d: d.update(input_size=[64, 180]), r"of \(32, 90\) pixels"),
        (lambda d: d.update(format=2), "of format 1"),
        (lambda d: d.pop("format"), "of format 1"),
        (lambda d: d.update(charset="a"), "a charset of 2 to 4096"),
        (lambda d: d.update(charset="aa"), "a charset of 2 to 4096"),
        (lambda d: d.update(charset=["a", "b"]), "a charset of 2 to 4096"),
        (lambda d: d.update(length=0), "1 <= min_length <= length"),
        (lambda d: d.update(length=33, min_length=33), "1 <= min_length <= length"),
        (lambda d: d.update(min_length=3), "1 <= min_length <= length"),
        (lambda d: d.update(length="2"), "malformed|1 <= min_length"),
        (lambda d: d.update(length=True), "1 <= min_length"),
        (lambda d: d.update(case="upper"), "case to be one of"),
        (lambda d: d.update(case=["lower"]), "malformed|case to be one of"),
        (lambda d: d.update(temperature=0), "a temperature of 0.01 to 100"),
        (lambda d: d.update(temperature=-1), "a temperature of 0.01 to 100"),
        (lambda d: d.update(temperature=float("nan")), "a temperature of 0.01 to 100"),
        (lambda d: d.update(temperature="1"), "a temperature of 0.01 to 100"),
        (lambda d: d.update(architecture=""), "an architecture"),
        (lambda d: d["files"].pop(MODEL), "a file model.tflite"),
        (lambda d: d["files"][MODEL].update(bytes=MAX_FILE_BYTES + 1), "files of at most"),
        (lambda d: d["files"][MODEL].update(bytes=-1), "files of at most"),
        (lambda d: d["files"][MODEL].update(bytes="5"), "files of at most"),
        (lambda d: d["files"][MODEL].update(mode="x"), "malformed"),
        (lambda d: d.update(files=[MODEL]), "malformed"),
        (lambda d: d.update(surprise=1), "malformed"),
        (lambda d: d.pop("charset"), "malformed"),
        (lambda d: d["golden"][0].update(image="!"), "not base64"),
        (lambda d: d["golden"][0].update(probabilities=[[1.0]]), "golden probabilities"),
        (lambda d: d["golden"][0].update(probabilities=[["x", 1], [0, 1]]), "malformed"),
        (lambda d: d["golden"][0].pop("text"), "malformed"),
        (lambda d: d["golden"][0].update(probabilities=[[10**400, 0], [0, 1]]), "malformed"),
        (lambda d: d["golden"].extend(d["golden"] * MAX_GOLDEN), "at most 16 golden images"),
        (lambda d: d.update(temperature=1e-300), "a temperature of 0.01 to 100"),
        (lambda d: d.update(temperature=10**400), "a temperature of 0.01 to 100"),
        (lambda d: d.update(charset="a\ud800"), "printable characters"),
        (lambda d: d.update(charset="a\n"), "printable characters"),
        (lambda d: d.update(charset="a\0"), "printable characters"),
        (lambda d: d.update(name="../../evil"), "a file's name"),
        (lambda d: d.update(name="C:evil"), "a file's name"),
        (lambda d: d.update(name=""), "a file's name"),
        (lambda d: d.update(name=["x"]), "a file's name"),
        (lambda d: d.update(name="x" * 101), "a file's name"),
        (lambda d: d["files"][MODEL].update(sha256=5), "a sha256"),
        (lambda d: d["files"][MODEL].update(sha256="../../evil"), "a sha256"),
        (lambda d: d.update(accuracy=[1]), "objects for accuracy"),
        (lambda d: d.update(calibration="n"), "objects for accuracy"),
        (lambda d: d.update(provenance=None), "objects for accuracy"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(out: Path, change: Any, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        open_bundle(damaged(out, change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\0"])
def test_a_manifest_that_is_no_object_is_refused(out: Path, text: str) -> None:
    version = write_version(out, manifest(), FILES)
    (version / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(out)


def test_a_manifest_in_another_encoding_is_refused(out: Path) -> None:
    version = write_version(out, manifest(), FILES)
    (version / MANIFEST).write_bytes(b"\xff\xfe{\0}\0")
    with pytest.raises(BundleError, match="cannot read"):
        open_bundle(out)


@pytest.mark.parametrize("name", [MANIFEST, MODEL, CURRENT])
def test_a_file_of_a_terabyte_is_not_read(out: Path, name: str) -> None:
    version = write_version(out, manifest(), FILES)
    with ((out if name == CURRENT else version) / name).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"is larger than|expected 5 bytes"):
        open_bundle(out).read(MODEL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", [MANIFEST, MODEL, CURRENT])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "nothing"])
def test_what_is_no_file_keeps_nobody_waiting(out: Path, name: str, kind: str) -> None:
    version = write_version(out, manifest(), {**FILES, "empty": b""})
    path = (out if name == CURRENT else version) / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "nothing":
            path.symlink_to(out / "gone")
    with pytest.raises(BundleError, match=r"cannot read|holds neither"):
        open_bundle(out).read(MODEL)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_to_the_very_file_is_as_good_as_the_file(out: Path) -> None:
    """As some installers make them; a link to any other file fails its sha256."""
    version = write_version(out, manifest(), FILES)
    elsewhere = out.parent / "elsewhere"
    (version / MODEL).rename(elsewhere)
    (version / MODEL).symlink_to(elsewhere)
    assert open_bundle(out).read(MODEL) == b"model"
    elsewhere.write_bytes(b"modem")
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(out).read(MODEL)


# -- where a bundle is


@pytest.mark.parametrize("current", ["../other", "/tmp", "", "..", "a/b", ".unfinished-1"])
def test_current_names_a_version_of_its_own_folder(out: Path, current: str) -> None:
    write_version(out, manifest(), FILES)
    (out / CURRENT).write_text(current)
    with pytest.raises(BundleError, match="which is not a version folder"):
        resolve(out)


def test_a_version_that_is_gone_is_named(out: Path) -> None:
    write_version(out, manifest(), FILES)
    (out / CURRENT).write_text("20200101T000000Z-00000000")
    with pytest.raises(BundleError, match="20200101T000000Z-00000000"):
        open_bundle(out)


def test_a_folder_is_a_bundle_once_it_has_a_current_version(out: Path) -> None:
    assert not is_bundle(out)
    version = write_version(out, manifest(), FILES)
    assert is_bundle(out)
    assert is_bundle(version)
    (out / CURRENT).unlink()  # as if the first write had been killed before its last step
    assert not is_bundle(out)


@pytest.mark.parametrize(
    "name",
    [
        "hf://somebody/model",
        "https://models.example/alnum4",
        "s3://bucket/model",
        "~nobody-of-that-name/model",
        "a\0b",
        "x" * 5000,
        "",
    ],
)
def test_nothing_is_downloaded_and_a_strange_name_is_said(name: str) -> None:
    with pytest.raises(BundleError):
        resolve(name)


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.pkl", "model.tflite", "m.zip"])
def test_a_file_is_never_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(BundleError, match=r"that is a file; .*files are never loaded"):
        resolve(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_current_version_in_no_encoding_is_refused(out: Path) -> None:
    write_version(out, manifest(), FILES)
    (out / CURRENT).write_bytes(b"\xff\xfe\0")
    with pytest.raises(BundleError, match="which is not a version folder"):
        resolve(out)


@pytest.mark.parametrize(
    ("text", "name"),
    [("models", "models"), ("a/b\\c:d\n", "a_b_c_d_"), ("", "model"), ("模型", "模型")],
)
def test_a_folder_of_any_name_gives_a_model_its_name(text: str, name: str, out: Path) -> None:
    assert safe_name(text) == name
    assert safe_name(safe_name(text)) == name
    write_version(out, manifest(name=safe_name(text)), FILES)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds neither bundle\.json nor CURRENT"):
        resolve(tmp_path)
    with pytest.raises(BundleError, match="no model 'alnum99': expected one of"):
        resolve("alnum99")


def test_the_shipped_models_are_found_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    version = write_version(shipped / "alnum4", manifest(), FILES)
    monkeypatch.setattr(module, "shipped_folder", lambda: shipped)
    work = tmp_path / "work"
    mine = write_version(work / "alnum4", manifest(), FILES)
    monkeypatch.chdir(work)
    assert shipped_names() == ["alnum4"]
    assert resolve("alnum4") == version
    assert resolve("./alnum4").resolve() == mine
    assert resolve(work / "alnum4") == mine
    assert resolve(mine) == mine

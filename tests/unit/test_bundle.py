"""A model on disk is used only when it is what its manifest says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from scrapy_captcha import bundle as module
from scrapy_captcha.bundle import (
    CURRENT,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    MODEL,
    WEIGHTS,
    Golden,
    Manifest,
    is_bundle,
    open_bundle,
    resolve,
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
        (lambda d: d.update(temperature=0), "a temperature above 0"),
        (lambda d: d.update(temperature=-1), "a temperature above 0"),
        (lambda d: d.update(temperature=float("nan")), "a temperature above 0"),
        (lambda d: d.update(temperature="1"), "a temperature above 0"),
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


def test_a_huge_manifest_is_not_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = write_version(out, manifest(), FILES)
    with (version / MANIFEST).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    monkeypatch.setattr(type(out), "read_text", _only(type(out).read_text, CURRENT))
    with pytest.raises(BundleError, match="is larger than"):
        open_bundle(out)


def _only(read: Any, name: str) -> Any:
    def checked(path: Path, *args: Any, **kwargs: Any) -> Any:
        assert path.name == name
        return read(path, *args, **kwargs)

    return checked


def test_a_huge_file_is_not_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = write_version(out, manifest(), FILES)
    with (version / MODEL).open("ab") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(type(out), "read_bytes", _only(type(out).read_bytes, "nothing"))
    with pytest.raises(BundleError, match="expected 5 bytes"):
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

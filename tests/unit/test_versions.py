"""Versions come and go in single steps: what is killed leaves a bundle that can be used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from scrapy_captcha.bundle import CURRENT, MODEL, WEIGHTS, Manifest, is_bundle, open_bundle
from scrapy_captcha.durable import unique_name
from scrapy_captcha.errors import BundleError
from scrapy_captcha.versions import (
    DROPPED,
    PREVIOUS,
    challengers,
    check_place,
    current,
    discard,
    previous,
    promote,
    roll_back,
    withdraw,
    write_version,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES = {MODEL: b"model", WEIGHTS: b"weights"}


def manifest(**changes: Any) -> Manifest:
    made = Manifest("trial", "ab", length=2, min_length=2, architecture="four_head_compact")
    return replace(made, **changes)


def write(out: Path, model: bytes, *, promoted: bool = True) -> str:
    """A version with that content for a model; its name."""
    return write_version(out, manifest(), {**FILES, MODEL: model}, promoted=promoted).name


def folders(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_dir()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "trial"


def test_a_new_version_is_current_and_the_old_one_stays(out: Path) -> None:
    old = write_version(out, manifest(), FILES)
    new = write_version(out, manifest(temperature=2.0), {**FILES, MODEL: b"better"})
    assert (out / CURRENT).read_text().strip() == new.name
    assert open_bundle(out).read(MODEL) == b"better"
    assert open_bundle(old).read(MODEL) == b"model"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [CURRENT, PREVIOUS, old.name, new.name]
    )


def test_an_older_version_can_be_made_current_again(out: Path) -> None:
    old = write_version(out, manifest(), FILES)
    write_version(out, manifest(), {**FILES, MODEL: b"worse"})
    (out / CURRENT).write_text(f"{old.name}\n")
    assert open_bundle(out).read(MODEL) == b"model"


def test_a_folder_of_something_else_is_not_written_into(out: Path) -> None:
    out.mkdir(parents=True)
    (out / "precious.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle of versions"):
        write_version(out, manifest(), FILES)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    with pytest.raises(BundleError, match="is not a bundle of versions"):
        write_version(out / "precious.txt", manifest(), FILES)


def test_a_disk_that_refuses_leaves_the_current_version_in_place(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(out, manifest(), FILES)
    before = sorted(path.name for path in out.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        write_version(out, manifest(), {**FILES, MODEL: b"better"})
    assert sorted(path.name for path in out.iterdir()) == before
    assert open_bundle(out).read(MODEL) == b"model"


KILLED_IN = """
import os, sys
from pathlib import Path
from scrapy_captcha import versions
from scrapy_captcha.bundle import MODEL, Manifest
from scrapy_captcha.versions import write_version

def die(*_):
    os.kill(os.getpid(), 9)

setattr(*{"files": (versions, "sync_folder", die), "pointer": (Path, "replace", die)}[sys.argv[2]])
manifest = Manifest("trial", "ab", length=2, min_length=2, architecture="four_head_compact")
write_version(Path(sys.argv[1]), manifest, {MODEL: b"killed"})
"""


@pytest.mark.skipif(os.name == "nt", reason="nothing kills like SIGKILL there")
@pytest.mark.parametrize("when", ["files", "pointer"])
def test_after_a_first_write_that_was_killed_the_next_one_finds_an_empty_bundle(
    out: Path, when: str
) -> None:
    command = [sys.executable, "-c", KILLED_IN, str(out), when]
    assert subprocess.run(command, check=False).returncode == -9
    (out / "report.html").write_text("of a version that is gone")
    assert any(path.name.startswith(".") for path in out.iterdir())
    assert not is_bundle(out)
    check_place(out)
    version = write_version(out, manifest(), FILES)
    assert open_bundle(out).folder == version
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_what_another_process_is_writing_is_left_alone(out: Path) -> None:
    theirs = out / f".unfinished-{unique_name()}"
    theirs.mkdir(parents=True)
    forgotten = out / ".CURRENT-of-some-other-machine"
    forgotten.write_text("")
    os.utime(forgotten, (0, 0))
    write_version(out, manifest(), FILES)
    assert theirs.is_dir()
    assert not forgotten.exists()


def test_a_challenger_is_read_by_nobody_until_it_is_promoted(out: Path) -> None:
    old = write(out, b"1")
    new = write(out, b"2", promoted=False)
    assert open_bundle(out).folder.name == old
    assert open_bundle(out / new).read(MODEL) == b"2"
    promote(out, new)
    assert open_bundle(out).folder.name == new
    assert previous(out) == [old]


def test_a_challenger_in_an_empty_place_makes_no_bundle_of_it(out: Path) -> None:
    only = write(out, b"1", promoted=False)
    assert not is_bundle(out)
    assert current(out) is None
    check_place(out)
    promote(out, only)
    assert is_bundle(out)
    assert previous(out) == []


def test_the_last_three_that_were_current_are_kept(out: Path) -> None:
    made = [write(out, bytes([i])) for i in range(6)]
    assert folders(out) == set(made[-3:])
    assert previous(out) == [made[4], made[3]]
    challenger = write(out, b"c", promoted=False)
    promote(out, challenger)
    assert folders(out) == {made[4], made[5], challenger}


def test_going_back_goes_back_one_version_each_time(out: Path) -> None:
    made = [write(out, bytes([i])) for i in range(3)]
    assert roll_back(out) == out / made[1]
    assert open_bundle(out).folder.name == made[1]
    assert roll_back(out) == out / made[0]
    with pytest.raises(BundleError, match=f"no version before {made[0]}"):
        roll_back(out)
    assert open_bundle(out).folder.name == made[0]
    assert (out / made[2]).is_dir()


def test_going_back_from_the_first_version_leaves_none_if_that_is_asked_for(out: Path) -> None:
    first = write(out, b"1")
    assert roll_back(out, to_none=True) is None
    assert not is_bundle(out)
    with pytest.raises(BundleError, match="no current version"):
        roll_back(out, to_none=True)
    promote(out, first)
    assert open_bundle(out).folder.name == first


def test_going_back_skips_versions_that_are_gone_and_challengers(out: Path) -> None:
    made = [write(out, bytes([i])) for i in range(3)]
    write(out, b"never current", promoted=False)
    discard_tree(out / made[1])
    assert roll_back(out) == out / made[0]


def test_what_was_gone_back_from_is_no_challenger(out: Path) -> None:
    assert challengers(out) == []
    write(out, b"1")
    promoted = write(out, b"2")
    roll_back(out)
    assert challengers(out) == []
    later = write(out, b"3", promoted=False)
    assert set(challengers(out)) <= {later}  # of one second, their hashes decide
    promote(out, promoted)
    assert current(out) == promoted
    roll_back(out)
    roll_back(out, to_none=True)
    assert challengers(out) == [later]
    check_place(out)


def test_a_challenger_of_more_than_an_hour_ago_is_none_any_more(out: Path) -> None:
    challenger = write(out, b"1", promoted=False)
    assert challengers(out) == [challenger]
    os.utime(out / challenger, (0, 0))
    assert challengers(out) == []


def test_several_are_gone_back_from_until_a_version_is_not_one_of_them(out: Path) -> None:
    trusted, second, third = (write(out, bytes([i])) for i in range(3))
    withdraw(out, [second, third])
    assert current(out) == trusted
    for version in (second, third):
        discard(out, version)
    withdraw(out, [second, third])
    assert current(out) == trusted
    withdraw(out, [trusted])
    assert current(out) is None


def discard_tree(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_lost_challenger_is_deleted_and_nothing_else_can_be(out: Path) -> None:
    old, now = write(out, b"1"), write(out, b"2")
    lost = write(out, b"3", promoted=False)
    discard(out, lost)
    discard(out, lost)
    for name in (old, now, "../trial", "CURRENT"):
        with pytest.raises(BundleError, match="not a challenger"):
            discard(out, name)
    assert folders(out) == {old, now}


def test_forgotten_challengers_are_deleted_after_an_hour(out: Path) -> None:
    champion = write(out, b"1")
    forgotten, fresh = (write(out, bytes([i]), promoted=False) for i in range(2, 4))
    os.utime(out / forgotten, (0, 0))
    os.utime(out / champion, (0, 0))
    now = write(out, b"4")
    assert folders(out) == {champion, fresh, now}


@pytest.mark.parametrize("version", ["", "..", "20200101T000000Z-00000000", "CURRENT"])
def test_only_a_version_that_is_there_can_be_promoted(out: Path, version: str) -> None:
    champion = write(out, b"1")
    with pytest.raises(BundleError, match="has no version"):
        promote(out, version)
    assert current(out) == champion


def test_a_damaged_challenger_is_not_promoted(out: Path) -> None:
    champion = write(out, b"1")
    damaged = write(out, b"2", promoted=False)
    (out / damaged / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match=r"bundle\.json"):
        promote(out, damaged)
    assert current(out) == champion


def test_a_promotion_killed_between_its_steps_can_be_repeated_and_gone_back_from(out: Path) -> None:
    champion = write(out, b"1")
    challenger = write(out, b"2", promoted=False)
    (out / PREVIOUS).write_text(f"{champion}\n")  # its first step
    assert previous(out) == []
    with pytest.raises(BundleError, match="no version before"):
        roll_back(out)
    promote(out, challenger)
    assert previous(out) == [champion]
    assert roll_back(out) == out / champion


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("kind", ["pipe", "device", "terabyte", "bytes"])
def test_whatever_is_in_the_place_of_a_list_of_versions_keeps_nobody_waiting(
    out: Path, kind: str
) -> None:
    write(out, b"one")
    for name in (CURRENT, PREVIOUS, DROPPED):
        (out / name).unlink(missing_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(out / name)
            case "device":
                (out / name).symlink_to("/dev/zero")
            case "terabyte":
                (out / name).touch()
                os.truncate(out / name, 1 << 40)
            case "bytes":
                (out / name).write_bytes(b"\xff\xfe")
    assert current(out) is None
    assert previous(out) == []
    assert len(challengers(out)) == 1

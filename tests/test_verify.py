from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scrapy_captcha import durable
from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.dataset import Dataset, SiteDataset, confirmed_pairs, rejections
from scrapy_captcha.durable import host
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.history import look_at
from scrapy_captcha.verify import Report, verify
from trainer.__main__ import main

PNG = b"\x89PNG\r\n\x1a\n"
HEX = "0" * 32


@pytest.fixture
def site(tmp_path: Path):
    """A site with an accepted and a rejected attempt, whose writer has ended."""
    dataset = Dataset(tmp_path)
    site = dataset.site("example.com")
    store(site, b"1", "ab3d")
    store(site, b"2", "zzzz", "rejected")
    dataset.close()
    return site


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def store(site: SiteDataset, more: bytes, guess: str, verdict: str = "accepted"):
    return site.store(PNG + more, guess, 0.5, "m", verdict)


def attempts_file(site: SiteDataset, pid: int, machine: str | None = None) -> Path:
    """Rename the site's attempts file as if another process had written it."""
    [path] = (site.path / "attempts").iterdir()
    return path.rename(path.with_name(f"{machine or host()}-{pid}-{HEX}.jsonl"))


def tear(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"schema": 1, "ti')
    return whole


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - 4000,) * 2)


def test_a_dataset_in_order_is_left_as_it_is(site, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    expected = Report(sites=1, attempts=2, confirmed=1, rejected=1)
    assert verify(tmp_path) == verify(site.path) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_torn_last_line_of_a_dead_writer_is_dropped(site, tmp_path, dead_pid):
    path = attempts_file(site, dead_pid)
    whole = tear(path)
    report = verify(tmp_path)
    assert (report.torn, report.attempts) == (1, 2)
    assert "torn last line (17 bytes)" in report.notes[0]
    assert path.read_bytes() == whole
    assert verify(tmp_path).notes == []


def test_a_file_without_a_whole_line_is_removed(site, tmp_path, dead_pid):
    folder = site.path / "attempts"
    (folder / f"{host()}-{dead_pid}-{HEX}.jsonl").touch()
    (folder / f"{host()}-{dead_pid}-{HEX[:-1]}1.jsonl").write_bytes(b"\0" * 100)
    report = verify(tmp_path)
    assert (report.torn, report.leftovers, report.attempts) == (1, 1, 2)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_torn_line_is_left_to_a_writer_that_may_live_until_it_is_old(site, tmp_path, elsewhere):
    path = attempts_file(site, os.getpid(), "elsewhere" if elsewhere else None)
    whole = tear(path)
    report = verify(tmp_path)
    assert report.torn == 0
    assert "its writer may be at it" in report.notes[0]
    assert path.read_bytes() != whole
    make_old(path)
    assert verify(tmp_path).torn == 1
    assert path.read_bytes() == whole


def test_temporaries_are_removed_unless_their_writer_may_live(site, tmp_path, dead_pid):
    folders = (site.path / "confirmed", site.path / "rejected")
    dead = [folder / f".tmp-{host()}-{dead_pid}-{HEX}" for folder in folders]
    living = folders[0] / f".tmp-{host()}-{os.getpid()}-{HEX}"
    elsewhere = folders[0] / f".tmp-else-where-{dead_pid}-{HEX}"
    for path in (*dead, living, elsewhere):
        path.write_bytes(PNG)
    assert verify(tmp_path).leftovers == 2
    assert not any(path.exists() for path in dead)
    assert living.exists()
    assert elsewhere.exists()
    make_old(living)
    make_old(elsewhere)
    assert verify(tmp_path).leftovers == 2
    assert verify(tmp_path).notes == []


def test_damaged_images_are_moved_away_and_reported_missing(site, tmp_path):
    store(site, b"3", "good")
    site.close()
    for _ in range(2):
        [path] = (site.path / "confirmed").glob("ab3d_*")
        path.write_bytes(PNG[:5])
        [other] = (site.path / "rejected").iterdir()
        other.write_bytes(b"")
        report = verify(tmp_path)
        assert (report.damaged, report.confirmed, report.rejected, report.missing) == (2, 1, 0, 2)
        assert not path.exists()
        store(site, b"1", "ab3d")
        store(site, b"2", "zzzz", "rejected")
    assert len(list((site.path / "damaged").iterdir())) == 4
    site.close()
    assert verify(tmp_path).notes == []
    assert [pair.label for pair in confirmed_pairs(site.path)[0]] != []


def test_hand_made_names_without_a_hash_are_not_damaged(site, tmp_path):
    (site.path / "confirmed" / "xy7z.png").write_bytes(PNG + b"7")
    (site.path / "confirmed" / "xy8z_2.png").write_bytes(PNG + b"8")
    (site.path / "rejected" / "blurred.png").write_bytes(PNG + b"9")
    report = verify(tmp_path)
    assert (report.confirmed, report.rejected, report.damaged) == (3, 2, 0)


def test_conflicts_and_missing_images_are_reported(site, tmp_path):
    store(site, b"1", "ab8d")
    gone = store(site, b"4", "gone").path
    moved = store(site, b"5", "rong", "rejected").path
    site.close()
    gone.unlink()
    moved.rename(site.path / "confirmed" / f"xy5z_{moved.name}")
    report = verify(tmp_path)
    assert (report.conflicts, report.missing, report.confirmed, report.attempts) == (1, 1, 1, 5)
    assert "'ab3d', 'ab8d'" in report.notes[0]
    assert gone.stem.split("_")[1] in report.notes[1]
    assert verify(tmp_path) == report


def test_lines_that_are_no_attempts_are_counted_and_kept(site, tmp_path):
    [path] = (site.path / "attempts").iterdir()
    path.write_bytes(b"nonsense\n\n" + path.read_bytes())
    before = path.read_bytes()
    report = verify(tmp_path)
    assert (report.unreadable, report.attempts) == (2, 2)
    assert path.read_bytes() == before


def named_pipe(site: SiteDataset) -> Path:
    path = site.path / "confirmed" / f"pipe_{HEX[:16]}.png"
    os.mkfifo(path)
    return path


def folder(site: SiteDataset) -> Path:
    path = site.path / "rejected" / f"{HEX[:16]}.png"
    path.mkdir()
    return path


def endless(site: SiteDataset) -> Path:
    path = site.path / "confirmed" / "zero.png"
    path.symlink_to("/dev/zero")
    return path


def looping(site: SiteDataset) -> Path:
    path = site.path / "rejected" / f"{HEX[:16]}.png"
    path.symlink_to(path.name)
    return path


def hidden_folder(site: SiteDataset) -> Path:
    path = site.path / "confirmed" / ".tmp-folder"
    path.mkdir()
    return path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("odd", [named_pipe, folder, endless, looping, hidden_folder])
def test_what_is_no_ordinary_file_is_left_out_and_reported(site, tmp_path, odd):
    path = odd(site)
    [damaged] = (site.path / "confirmed").glob("ab3d_*")
    damaged.write_bytes(PNG)
    for found in (1, 0):  # the rest is mended all the same
        report = verify(tmp_path)
        assert (report.damaged, report.confirmed) == (found, 0)
        assert report.failed == 1
        assert any(str(path) in note for note in report.notes)
    pairs, conflicts = confirmed_pairs(site.path)
    assert (pairs, conflicts) == ([], [])
    assert [rejection.guesses for rejection in rejections(site.path)] == [("zzzz",)]
    look_at(site.path)


def test_the_command_says_what_it_did_in_characters_that_can_be_shown(site, tmp_path, capsys):
    path = os.fsencode(site.path / "confirmed") + b"/\xff\x1b[2J_" + HEX[:16].encode() + b".png"
    Path(os.fsdecode(path)).write_bytes(PNG)
    assert main(["verify", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "sites 1, attempts 2, confirmed 1, rejected 1" in said
    assert "\\udcff\\x1b[2J" in said
    assert "moved to damaged/" in said
    assert main(["verify", str(tmp_path)]) == 0
    assert "nothing to mend" in capsys.readouterr().out


def test_the_command_ends_with_an_error_when_something_could_not_be_mended(site, tmp_path, capsys):
    (site.path / "damaged").write_text("no folder")
    [path] = (site.path / "confirmed").iterdir()
    path.write_bytes(PNG)
    assert main(["verify", str(tmp_path)]) == 2
    assert "failed 1" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "no such dataset folder" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_each_file_that_cannot_be_read_is_reported_and_the_rest_is_checked(site, tmp_path, code):
    paths = [path for path in site.path.rglob("*") if path.is_file()]
    store(site, b"3", "good")
    site.close()
    assert len(paths) == 3
    real = os.open
    for unreadable in paths:

        def opening(path, *arguments, unreadable=unreadable, **keywords):
            if path == unreadable:
                raise OSError(code, os.strerror(code))
            return real(path, *arguments, **keywords)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", opening)
            report = verify(tmp_path)
        assert report.failed >= 1
        assert any(str(unreadable) in note for note in report.notes)
        assert report.damaged == report.torn == report.leftovers == 0
    assert verify(tmp_path) == Report(sites=1, attempts=3, confirmed=2, rejected=1)


def test_a_model_that_a_killed_trainer_left_unfinished_is_removed(site, tmp_path, dead_pid):
    model = site.path / "model"
    for pid in (dead_pid, os.getpid()):
        (model / f".unfinished-{host()}-{pid}-{HEX}").mkdir(parents=True)
        (model / f".CURRENT-{host()}-{pid}-{HEX}").touch()
    (model / "report.html").touch()
    report = verify(tmp_path)
    assert report.leftovers == len(report.notes) == 2
    assert len(list(model.iterdir())) == 3
    assert verify(tmp_path).notes == []


def test_a_long_torn_line_is_dropped_whole(site, tmp_path, dead_pid):
    path = attempts_file(site, dead_pid)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    assert verify(tmp_path).torn == 1
    assert path.read_bytes() == whole


def test_what_another_container_of_this_machine_writes_is_left_alone(site, tmp_path, dead_pid):
    own = host() if durable._pid_namespace() == durable._OUTERMOST else host().rpartition("-")[0]
    other = site.path / "confirmed" / f".tmp-{own}-4026539999-{dead_pid}-{HEX}"
    other.write_bytes(PNG)
    assert verify(tmp_path).leftovers == 0
    assert "may be in use" in verify(tmp_path).notes[0]


def test_every_site_of_a_dataset_is_checked(site, tmp_path):
    dataset = Dataset(tmp_path)
    store(dataset.site("other.example:81"), b"1", "ab3d")
    dataset.close()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path) == Report(sites=2, attempts=3, confirmed=2, rejected=1)


def test_a_folder_that_is_no_dataset_is_named(tmp_path):
    assert "holds no site" in verify(tmp_path).notes[0]
    with pytest.raises(DatasetError, match=r"^no such dataset folder: .*misspelt$"):
        verify(tmp_path / "misspelt")


def test_verify_takes_nothing_from_a_crawl_that_is_writing(tmp_path):
    sites = [Dataset(tmp_path).site("example.com") for _ in range(2)]
    store(sites[0], b"warm", "warm")
    done = threading.Event()
    stored = [["warm"], []]

    def write(number: int) -> None:
        while not done.is_set():
            guess = f"{number}x{len(stored[number])}"
            verdict = "accepted" if len(stored[number]) % 3 else "rejected"
            store(sites[number], guess.encode(), guess, verdict)
            stored[number].append(guess)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        report = verify(tmp_path)
        assert (report.torn, report.damaged, report.leftovers, report.missing) == (0, 0, 0, 0)
    done.set()
    for thread in threads:
        thread.join()
    for site in sites:
        site.close()
    everything = sorted(stored[0] + stored[1])
    assert sorted(a.guess for a in read_attempts(sites[0].path)) == everything
    report = verify(tmp_path)
    assert (report.attempts, report.notes) == (len(everything), [])
    assert report.confirmed + report.rejected == len(everything)

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from dataset_processes import CONFLICT_EVERY, SITE, png
from failing_disk import TIDYING, FailingDisk

from scrapy_captcha import verify as verify_module
from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.dataset import Dataset, SiteDataset, confirmed_pairs
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.verify import verify
from trainer.corpus import fold, gather, sort_out

HERE = Path(__file__).parent
FOLDER = "127.0.0.1_8000"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture
def root():
    """A folder in memory where there is one: what a kill leaves does not depend on the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def processes(*arguments: object) -> list:
    """The JSON lines that dataset_processes.py prints."""
    words = [sys.executable, str(HERE / "dataset_processes.py"), *map(str, arguments)]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, timeout=3600)
    return [json.loads(line) for line in done.stdout.splitlines()]


def torn_images(site_dir: Path) -> list[Path]:
    return [
        path
        for folder in ("confirmed", "rejected")
        for path in (site_dir / folder).glob("[!.]*")
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != path.stem.rpartition("_")[2]
    ]


def assert_whole_lines(site_dir: Path) -> None:
    for path in (site_dir / "attempts").iterdir():
        assert path.read_bytes().endswith(b"\n")


def survive_kills(root: Path, kills: int, writers: int, seed: int) -> None:
    """Kill writers; assert that all they acknowledged is there, and that verify mends the rest."""
    acknowledged = processes("kills", root, kills, writers, seed)
    assert len(acknowledged) > kills
    assert_kept(root, acknowledged)
    print(f"{kills} kills of {writers} writers: {len(acknowledged)} attempts, all of them kept")


def assert_kept(root: Path, acknowledged: list) -> None:
    assert not torn_images(root / FOLDER)
    for path, digest, _, _ in acknowledged:
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    report = verify(root)
    assert (report.unreadable, report.damaged, report.conflicts, report.missing) == (0, 0, 0, 0)
    stored = Counter((a.image, a.guess, a.verdict) for a in read_attempts(root / FOLDER))
    assert Counter((digest, *said) for _, digest, *said in acknowledged) <= stored
    labels = {pair.sha256: pair.label for pair in confirmed_pairs(root / FOLDER)[0]}
    accepted = {digest: guess for _, digest, guess, verdict in acknowledged if verdict[0] == "a"}
    assert accepted.items() <= labels.items()
    assert_whole_lines(root / FOLDER)
    assert verify(root).notes == []


@needs_fork
def test_kill_9_loses_no_acknowledged_pair_and_tears_no_image(root):
    survive_kills(root, kills=15, writers=2, seed=7)


@needs_fork
@pytest.mark.slow
def test_2000_kills_of_4_writers_lose_no_acknowledged_pair(tmp_path):
    for seed in range(10):
        survive_kills(tmp_path / str(seed), kills=200, writers=4, seed=seed)


def survive_power_cuts(disk: Path, cuts: int, writers: int, seed: int) -> None:
    """Cut the power of a disk that is written to; assert that all that was acknowledged is there.

    The cut is the one that file systems are tested with: ext4 is told to take no more writes, and
    to forget those that have not reached the disk.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount")
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    folder = disk.with_suffix(".mounted")
    folder.mkdir()
    mount = ["mount", "-o", "loop", str(disk), str(folder)]
    for command in (["mkfs.ext4", "-q", "-F", str(disk)], mount):
        if not shutil.which(command[0]) or subprocess.run(command, check=False).returncode:
            pytest.skip("no ext4 file system can be made here")
    subprocess.run(["umount", str(folder)], check=True)
    acknowledged = processes("cuts", disk, cuts, writers, seed)
    subprocess.run(mount, check=True)
    try:
        assert_kept(folder / "captchas", acknowledged)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    print(f"{cuts} power cuts under {writers} writers: {len(acknowledged)} attempts, all kept")


@needs_fork
def test_a_power_cut_loses_no_acknowledged_pair_and_tears_no_image(tmp_path):
    survive_power_cuts(tmp_path / "disk", cuts=2, writers=2, seed=3)


@needs_fork
@pytest.mark.slow
def test_200_power_cuts_under_4_writers_lose_no_acknowledged_pair(tmp_path):
    survive_power_cuts(tmp_path / "disk", cuts=200, writers=4, seed=3)


@needs_fork
def test_a_kill_at_each_system_call_leaves_nothing_torn_and_verify_mends_it(root):
    outcomes = processes("calls", root)
    assert [stored for *_, stored in outcomes].count(False) > 30
    mended = 0
    for folder, warm, _ in outcomes:
        first = {"first": png(1)} if warm else {}
        site_dir = Path(folder, FOLDER)
        if not (site_dir / "confirmed").exists():
            continue
        assert not torn_images(site_dir)
        assert {a.guess for a in read_attempts(site_dir)} >= set(first)
        mended += bool(verify(site_dir).notes)
        dataset = Dataset(Path(folder))
        dataset.site(SITE).store(png(2), "second", 0.5, "m", "accepted")
        dataset.close()
        pairs, conflicts = confirmed_pairs(site_dir)
        assert {p.label: p.path.read_bytes() for p in pairs} == {**first, "second": png(2)}
        assert not conflicts
        assert verify(Path(folder)).notes == []
    assert mended > 10


def store_the_same(root: Path, count: int, images: int) -> None:
    """Have processes store the same images, some of them under two labels."""
    outcomes = processes("same", root, count, images)
    two = set(range(0, images, CONFLICT_EVERY))
    assert sum(new for _, new, _ in outcomes) == images + len(two)
    assert {n for *_, told in outcomes for n in told} == two
    pairs, conflicts = confirmed_pairs(root / FOLDER)
    assert len({pair.sha256 for pair in pairs}) == len(pairs) == 1 + images - len(two)
    assert {conflict.labels for conflict in conflicts} == {("ab3d", "xy9z")}
    assert {c.sha256 for c in conflicts} == {hashlib.sha256(png(n)).hexdigest() for n in two}
    learnt = sort_out(fold(gather([root / FOLDER]), "lower"))[0]
    assert {sample.digest for sample in learnt} == {pair.sha256 for pair in pairs}
    names = [path.name for path in (root / FOLDER / "attempts").iterdir()]
    assert {int(name.split("-")[-2]) for name in names} >= {pid for pid, *_ in outcomes}
    assert len(names) == 1 + count
    assert Dataset(root).site(SITE).count_attempts() == 1 + count * images
    report = verify(root)
    assert (report.confirmed, report.conflicts) == (len(pairs), len(two))
    assert all("labels 'ab3d', 'xy9z'" in note for note in report.notes)
    assert len(report.notes) == len(two)
    print(f"{count} processes: {len(pairs)} pairs, {len(two)} conflicts, as it should be")


@needs_fork
def test_processes_storing_the_same_images_count_each_once(root):
    store_the_same(root, 4, 40)


@needs_fork
@pytest.mark.slow
def test_8_processes_storing_the_same_2000_images_count_each_once(tmp_path):
    store_the_same(tmp_path, 8, 2000)


def refusal(site: SiteDataset) -> DatasetError | None:
    try:
        site.store(png(2), "second", 0.5, "m", "accepted")
    except DatasetError as e:
        return e
    return None


FAILURES = pytest.mark.parametrize(
    ("code", "lasts"), [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EIO, False)]
)


@FAILURES
@pytest.mark.parametrize("warm", [True, False])
def test_a_full_or_failing_disk_is_reported_and_tears_nothing(root, code, lasts, warm):
    failed = set()
    for call in range(200):
        folder = root / str(call)
        dataset = Dataset(folder)
        site = dataset.site(SITE)
        if warm:
            site.store(png(1), "first", 0.5, "m", "accepted")
        with FailingDisk(folder, code, call, lasts=lasts) as disk:
            error = refusal(site)
        failed |= set(disk.failed)
        assert (error is not None) == bool(set(disk.failed) - TIDYING)
        if error is not None:
            assert error.errno == code
            assert str(folder) in error.filename
            assert ("disk is full" if code == errno.ENOSPC else "check it") in str(error)
        if site.path.exists():
            assert not torn_images(site.path)
            if (site.path / "attempts").exists() and not lasts:
                assert_whole_lines(site.path)
        site.store(png(2), "second", 0.5, "m", "accepted")
        attempts = Counter(attempt.guess for attempt in read_attempts(site.path))
        assert attempts["first"] == warm
        assert attempts["second"] in (1, 2)
        assert {pair.label for pair in confirmed_pairs(site.path)[0]} == set(attempts)
        dataset.close()
        if not disk.failed:
            break
    assert failed >= {"open", "write", "fsync", "link", *(() if warm else ("mkdir",))}


@FAILURES
def test_a_disk_that_fails_while_words_are_taken_back_leaves_none_to_train_on(root, code, lasts):
    failed = set()
    for call in range(200):
        dataset = Dataset(root / str(call))
        site = dataset.site(SITE)
        for number in range(3):
            site.store(png(number), f"lie{number}", 0.5, "m", "accepted")
        with FailingDisk(site.path, code, call, lasts=lasts) as disk:
            try:
                taken_back = site.testify(png(9), "zzzz", 0.5, "m", "canary_accepted")
            except DatasetError:
                taken_back = None
        failed |= set(disk.failed)
        assert (taken_back is None) == bool(set(disk.failed) - TIDYING)
        said = "canary_accepted" in {attempt.verdict for attempt in read_attempts(site.path)}
        assert said or taken_back is None
        if said:
            assert confirmed_pairs(site.path) == ([], [])
        dataset.close()
        verify(root / str(call))
        assert len(list((site.path / "quarantined").iterdir() if said else ())) == 3 * said
        assert verify(root / str(call)).quarantined == 0
        if not disk.failed:
            break
    assert failed >= {"mkdir", "replace", "write", "fsync"}


def test_a_line_that_cannot_be_taken_back_is_ignored_and_dropped(tmp_path, monkeypatch):
    dataset = Dataset(tmp_path)
    site = dataset.site(SITE)
    site.store(png(1), "first", 0.5, "m", "accepted")
    real = os.write

    def write(descriptor, data):
        if not bytes(data).startswith(b"{"):
            return real(descriptor, data)
        real(descriptor, data[:50])
        raise OSError(errno.EIO, "broken")

    def truncate(*arguments):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(os, "ftruncate", truncate)
        for _ in range(2):
            with pytest.raises(DatasetError):
                site.store(png(2), "second", 0.5, "m", "accepted")
    site.store(png(3), "third", 0.5, "m", "accepted")
    dataset.close()
    for _ in range(2):
        assert sorted(a.guess for a in read_attempts(site.path)) == ["first", "third"]
        assert site.count_attempts() == 2
        monkeypatch.setattr(verify_module, "in_use", lambda path: False)
        verify(tmp_path)
    assert_whole_lines(site.path)


def test_a_short_write_is_taken_back(tmp_path, monkeypatch):
    dataset = Dataset(tmp_path)
    site = dataset.site(SITE)
    site.store(png(1), "first", 0.5, "m", "accepted")
    real = os.write
    with monkeypatch.context() as patch:
        # the image is written by several short calls, its line must go in one
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[: len(data) // 2 + 1]))
        with pytest.raises(DatasetError, match="disk is full"):
            site.store(png(2), "second", 0.5, "m", "accepted")
    assert_whole_lines(site.path)
    assert not torn_images(site.path)
    site.store(png(2), "second", 0.5, "m", "accepted")
    assert [a.guess for a in read_attempts(site.path)].count("second") == 1
    dataset.close()


def test_the_image_is_on_the_disk_before_its_line_and_the_line_before_the_return(
    tmp_path, monkeypatch
):
    dataset = Dataset(tmp_path)
    site = dataset.site(SITE)
    site.store(png(1), "first", 0.5, "m", "accepted")
    calls: list[str] = []
    for name in ("write", "fsync", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, _name=name, _real=real: (calls.append(_name), _real(*a))[1]
        )
    site.store(png(2), "second", 0.5, "m", "accepted")
    assert calls == ["write", "fsync", "link", "fsync", "write", "fsync"]
    dataset.close()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch, code):
    def link(*arguments, **keywords):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    dataset = Dataset(tmp_path)
    site = dataset.site(SITE)
    assert site.store(png(1), "first", 0.5, "m", "accepted").new
    assert not site.store(png(1), "first", 0.5, "m", "accepted").new
    assert not torn_images(site.path)
    dataset.close()
    assert verify(tmp_path).notes == []

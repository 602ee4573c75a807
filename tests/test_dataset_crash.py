from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from dataset_processes import CALLS, SITE, png

from scrapy_captcha import verify as verify_module
from scrapy_captcha.attempts import read_attempts
from scrapy_captcha.dataset import Dataset, SiteDataset, confirmed_pairs
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.verify import verify

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


@needs_fork
def test_processes_storing_the_same_images_count_each_once(root):
    outcomes = processes("same", root, 4, 40)
    assert sum(new for _, new in outcomes) == 40
    pairs, conflicts = confirmed_pairs(root / FOLDER)
    assert (len(pairs), conflicts) == (41, [])
    names = [path.name for path in (root / FOLDER / "attempts").iterdir()]
    assert {int(name.split("-")[-2]) for name in names} >= {pid for pid, _ in outcomes}
    assert len(names) == 5
    assert Dataset(root).site(SITE).count_attempts() == 1 + 4 * 40


class Faults:
    """Has the n-th system call fail, after half of its work if it writes."""

    def __init__(self, monkeypatch, code: int, call: int) -> None:
        self.left = call
        self.code = code
        for name in set(CALLS) - {"close"}:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, real):
        def wrapper(*arguments, **keywords):
            self.left -= 1
            if self.left == -1:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **keywords)

        return wrapper


def refusal(site: SiteDataset) -> DatasetError | None:
    try:
        site.store(png(2), "second", 0.5, "m", "accepted")
    except DatasetError as e:
        return e
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("warm", [True, False])
def test_a_full_or_failing_disk_is_reported_and_tears_nothing(root, code, warm):
    failed = 0
    for call in range(200):
        folder = root / str(call)
        dataset = Dataset(folder)
        site = dataset.site(SITE)
        if warm:
            site.store(png(1), "first", 0.5, "m", "accepted")
        with pytest.MonkeyPatch.context() as monkeypatch:
            faults = Faults(monkeypatch, code, call)
            error = refusal(site)
        if error is not None:
            failed += 1
            assert error.errno == code
            assert str(folder) in error.filename
            assert ("disk is full" if code == errno.ENOSPC else "check it") in str(error)
        if site.path.exists():
            assert not torn_images(site.path)
            if (site.path / "attempts").exists():
                assert_whole_lines(site.path)
        site.store(png(2), "second", 0.5, "m", "accepted")
        attempts = Counter(attempt.guess for attempt in read_attempts(site.path))
        assert attempts["first"] == warm
        assert attempts["second"] in (1, 2)
        assert {pair.label for pair in confirmed_pairs(site.path)[0]} == set(attempts)
        dataset.close()
        if faults.left >= 0:
            break
    assert 6 < failed <= call


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

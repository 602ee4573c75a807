"""What a site that accepts wrong answers makes of a crawl that retrains, with canaries and without.

    python benchmarks/liar.py SET [--lies 0,0.1,1] [--canaries off,on] [--seeds 0,1,2] [--log FILE]

A loopback site puts one of the labelled images of a folder or zip in front of each page, accepts
right answers and a share of the wrong ones; a crawl with CAPTCHA_RETRAIN_AFTER takes the pages,
with the real trainer beside it. Afterwards the site's model, or the base where none was promoted,
reads images that the site never shows. A seed decides which these are, the order of the others, and
which wrong answers pass, so that runs of one seed can be compared.

Each run is a line of JSON; then come the mean differences between paired runs with Student's 95 %
interval over the seeds: of each model and its base, of a lying site and an honest one, and of the
same site with canaries and without. With --log, runs that it holds already are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import random
import secrets
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from html import escape
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import scrapy
from scrapy.crawler import AsyncCrawlerProcess

from scrapy_captcha.bundle import is_bundle, open_bundle
from scrapy_captcha.dataset import confirmed_pairs
from scrapy_captcha.naming import QUARANTINED_FOLDER, image_files, site_folder
from scrapy_captcha.recognizer import Recognizer
from trainer.corpus import Task, fold, fold_case, gather, sort_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.corpus import Sample

CANARIES = ("off", "on")
JARS = 4
#: The point of Student's distribution that 97.5 % lie below, by degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Run:
    """One crawl."""

    set: str
    base: str
    lies: float
    canaries: str
    seed: int
    pages: int
    holdout: int
    retrain_after: int
    delay: float


class Site(ThreadingHTTPServer):
    """Asks before each page, shows each image once, and then lets everybody in.

    :param images: what it shows, in this order
    :ivar lied: how many wrong answers it has accepted, canaries included
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, images: Sequence[Sample], run: Run) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.run = run
        self.images = images
        self.shown = self.answers = self.right = self.lied = 0
        self.lock = threading.Lock()
        self.expected: dict[str, Sample] = {}
        self.may_enter: set[str] = set()

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def lets_in(self, visitor: str) -> bool:
        """Whether a page is delivered, which uses up what an answer has earned."""
        with self.lock:
            earned = visitor in self.may_enter
            self.may_enter.discard(visitor)
            return earned or self.shown >= len(self.images)

    def show(self, visitor: str) -> bytes:
        """The next image, or the last one once all have been shown."""
        with self.lock:
            sample = self.images[min(self.shown, len(self.images) - 1)]
            self.shown += 1
            self.expected[visitor] = sample
            return sample.data

    def judge(self, visitor: str, answer: str) -> bool:
        """What it says to an answer to the image that it showed last."""
        with self.lock:
            sample = self.expected.pop(visitor, None)
            if sample is None:
                return False
            right = answer.lower() == sample.label.lower()
            # by the image, so that paired crawls are lied to at the same ones
            lied = not right and random.Random(f"{self.run.seed} {sample.digest}").random()
            accepted = right or lied < self.run.lies
            self.answers += 1
            self.right += right
            self.lied += accepted and not right
            if accepted:
                self.may_enter.add(visitor)
            return accepted


class Handler(BaseHTTPRequestHandler):
    """Knows its visitors by a cookie."""

    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *args: object) -> None:
        pass

    def visitor(self) -> str:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("visitor")
        return cookie.value if cookie else secrets.token_hex(8)

    def answer(self, visitor: str, body: bytes, kind: str = "text/html; charset=utf-8") -> None:
        self.send_response(200)
        self.send_header("Set-Cookie", f"visitor={visitor}; Path=/")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def wall(self, visitor: str, then: str) -> None:
        page = (
            "<!doctype html><title>Are you human?</title><p>Type the code in the captcha.</p>"
            '<form method="post" action="/answer"><img src="/captcha" alt="captcha">'
            f'<input type="hidden" name="then" value="{escape(then)}">'
            '<input type="text" name="captcha"><button>Send</button></form>'
        )
        self.answer(visitor, page.encode())

    def do_GET(self) -> None:
        time.sleep(self.server.run.delay)
        visitor, path = self.visitor(), urlsplit(self.path).path
        if path == "/captcha":
            self.answer(visitor, self.server.show(visitor), "image/png")
        elif path == "/robots.txt":
            self.answer(visitor, b"User-agent: *\nDisallow:\n", "text/plain")
        elif self.server.lets_in(visitor):
            name = escape(path.rpartition("/")[2])
            self.answer(visitor, f'<!doctype html><h1 class="name">{name}</h1>'.encode())
        else:
            self.wall(visitor, path)

    def do_POST(self) -> None:
        time.sleep(self.server.run.delay)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        visitor, then = self.visitor(), form.get("then", "/")
        if not self.server.judge(visitor, form.get("captcha", "")):
            self.wall(visitor, then)
            return
        self.send_response(302)
        self.send_header("Location", then)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Pages(scrapy.Spider):
    """Takes the name from each page."""

    name = "pages"

    async def start(self) -> Any:
        for number in range(self.pages):
            jar = {"cookiejar": number % JARS}
            yield scrapy.Request(f"http://{self.netloc}/page/{number}", meta=jar)

    def parse(self, response: Any) -> Any:
        yield {"name": response.css(".name::text").get()}


def crawl(run: Run, netloc: str, folder: str) -> dict[str, Any]:
    """Crawl in this process; what the stats say of it."""
    rule = {"canary_rate": 0} if run.canaries == "off" else {}
    settings = {
        "ADDONS": {"scrapy_captcha.Addon": 500},
        "CAPTCHA_SITES": {netloc: rule},
        "CAPTCHA_MODEL": run.base,
        "CAPTCHA_DATASET": folder,
        "CAPTCHA_RETRAIN_AFTER": run.retrain_after,
        "CAPTCHA_MAX_ATTEMPTS": 200,
        "CAPTCHA_TIMEOUT": 600,
        "CAPTCHA_BREAKER": 1000,
        "CONCURRENT_REQUESTS": JARS,
        "CONCURRENT_REQUESTS_PER_DOMAIN": JARS,
        "DOWNLOAD_DELAY": 0,
        "DOWNLOAD_TIMEOUT": 600,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
    }
    process = AsyncCrawlerProcess(settings)
    crawler = process.create_crawler(Pages)
    process.crawl(crawler, pages=run.pages, netloc=netloc)
    process.start()
    stats = crawler.stats.get_stats()
    names = ("retrained", "promoted", "rolled_back", "canary", "quarantined")
    said = {name: stats.get(f"captcha/{name}", 0) for name in names}
    return {"items": stats.get("item_scraped_count", 0), **said}


def measure(run: Run, samples: list[Sample]) -> dict[str, Any]:
    """One crawl and what came of it."""
    order = random.Random(run.seed).sample(samples, len(samples))
    unseen, images = order[: run.holdout], order[run.holdout :]
    start = time.monotonic()
    with Site(images, run) as site, tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            said = pool.submit(crawl, run, site.netloc, folder).result()
        own = Path(folder, site_folder(site.netloc))
        model = str(own / "model") if is_bundle(own / "model") else run.base
        return {
            **asdict(run),
            "accuracy": exact_match(model, unseen),
            "base_accuracy": exact_match(run.base, unseen),
            "own_model": model != run.base,
            **said,
            "images": min(site.shown, len(images)),
            "exhausted": site.shown >= len(images),
            "answers": site.answers,
            "right": site.right,
            "lied": site.lied,
            **labels_left(own, samples),
            "seconds": round(time.monotonic() - start, 1),
        }


def labels_left(own: Path, samples: list[Sample]) -> dict[str, int]:
    """What the dataset holds in the end, and how much of it is wrong."""
    truth = {sample.digest: sample.label.lower() for sample in samples}
    pairs, _ = confirmed_pairs(own)
    return {
        "labels": len(pairs),
        "false_labels": sum(truth[pair.sha256] != pair.label.lower() for pair in pairs),
        "put_aside": sum(1 for _ in image_files(own / QUARANTINED_FOLDER)),
    }


def exact_match(model: str, unseen: list[Sample]) -> float:
    """The share of images that a model reads right."""
    recognizer = Recognizer.load(model)
    case = open_bundle(model).manifest.case
    right = sum(recognizer.read(s.data).text == fold_case(s.label, case) for s in unseen)
    return round(right / len(unseen), 4)


def interval(differences: list[float]) -> list[float] | None:
    """Student's 95 % interval of a mean; none of a single difference."""
    if len(differences) < 2:
        return None
    at = STUDENT[len(differences) - 2] if len(differences) - 2 < len(STUDENT) else STUDENT[-1]
    reach = at * stdev(differences) / math.sqrt(len(differences))
    middle = mean(differences)
    return [round(middle - reach, 4), round(middle + reach, 4)]


def comparisons(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paired differences in accuracy, by what is compared."""
    by = {(line["lies"], line["canaries"], line["seed"]): line for line in lines}
    differences: dict[tuple[str, str], list[float]] = {}
    for (lies, canaries, seed), line in by.items():
        arm = f"lies {lies:g}, canaries {canaries}"
        others = {
            "its base": line["base_accuracy"],
            "an honest site": by.get((0.0, canaries, seed), {}).get("accuracy") if lies else None,
            "without canaries": by.get((lies, "off", seed), {}).get("accuracy")
            if canaries == "on"
            else None,
        }
        for other, accuracy in others.items():
            if accuracy is not None:
                differences.setdefault((arm, other), []).append(line["accuracy"] - accuracy)
    return [
        {
            "compared": arm,
            "with": other,
            "n": len(found),
            "mean_difference": round(mean(found), 4),
            "interval_95": interval(found),
        }
        for (arm, other), found in differences.items()
    ]


def read_set(path: Path, base: str) -> list[Sample]:
    """The images of a set that the base has characters for, each once, by their hashes."""
    manifest = open_bundle(base).manifest
    task = Task(manifest.charset, manifest.length, manifest.min_length, manifest.case)
    kept, _, _ = sort_out(fold(gather([path]), task.case))
    readable = [sample for sample in kept if task.reads(sample.label) and sample.data]
    return sorted(readable, key=lambda sample: sample.digest)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, make the runs that are not in the log yet, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", type=Path)
    parser.add_argument("--base", default="alnum4")
    parser.add_argument("--lies", default="0,0.1,1", help="shares of wrong answers accepted")
    parser.add_argument("--canaries", default="off,on")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--holdout", type=int, default=300, help="images that the site never shows")
    parser.add_argument("--retrain-after", type=int, default=25)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds before each answer")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args(argv)
    if strange := set(options.canaries.split(",")) - set(CANARIES):
        parser.error(f"expected canaries on or off, got {', '.join(strange)}")
    lies = [float(share) for share in options.lies.split(",")]
    if not all(0 <= share <= 1 for share in lies):
        parser.error(f"expected shares from 0 to 1, got {options.lies}")
    samples = read_set(options.set, options.base)
    if len(samples) <= options.holdout:
        parser.error(f"expected more than {options.holdout} images, got {len(samples)}")
    known = {}
    if options.log and options.log.exists():
        for text in options.log.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            known[tuple(line[name] for name in Run.__annotations__)] = line
    digests = "".join(sample.digest for sample in samples)
    name = f"{options.set.stem} {hashlib.sha256(digests.encode()).hexdigest()[:8]}"
    lines = []
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for seed, share, canaries in itertools.product(seeds, lies, options.canaries.split(",")):
        run = Run(
            set=name,
            base=options.base,
            lies=share,
            canaries=canaries,
            seed=seed,
            pages=options.pages,
            holdout=options.holdout,
            retrain_after=options.retrain_after,
            delay=options.delay,
        )
        line = known.get(tuple(asdict(run).values()))
        if line is None:
            line = measure(run, samples)
            print(json.dumps(line), flush=True)
            if options.log:
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
        lines.append(line)
    for found in comparisons(lines):
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What models that were made to harm do to who loads them: errors, time, memory.

    python benchmarks/hostile_models.py [--only WORD] [--side crawl|trainer|both]
                                        [--limit-ms 1000] [--limit-mb 50]

Each case is a copy of a shipped bundle with something wrong, right hashes included: what somebody
would give away who wants a crawl or a training to run out of memory, hang, write elsewhere or run
code. The crawl's side loads each in a process of its own, forked from one that has loaded a good
model; the trainer's loads ``weights.keras`` after ``weights.keras`` in one process. A JSON line
each; the exit code is 1 when one does anything else than be refused with a ``BundleError`` (those
that begin with "fine" are loaded), leaves a file behind, or takes more than a limit. Linux only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostile_corpus import LARGEST, png
from hostile_images import forget_peak, memory

from scrapy_captcha import Recognizer
from scrapy_captcha.bundle import CURRENT, MANIFEST, MODEL, WEIGHTS, open_bundle, resolve
from scrapy_captcha.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = Callable[[Path], Any]

BASE = "alnum4"
HANGS = 60


# -- what is wrong with a bundle, but for its graph


def changed(folder: Path, **changes: Any) -> None:
    """Change the manifest."""
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def replaced(folder: Path, name: str, content: bytes) -> None:
    """Replace a file, and state its size and hash in the manifest."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    changed(folder, files=files)


def golden(folder: Path, image: bytes, count: int) -> None:
    """Add golden images whose probabilities are right."""
    from scrapy_captcha.image import prepare  # noqa: PLC0415
    from scrapy_captcha.recognizer import softmax  # noqa: PLC0415

    try:
        chances = softmax(Recognizer.load(BASE).logits(prepare(image))).round(3).tolist()
    except ValueError:
        chances = [[0.0] * 36] * 4
    one = {"image": base64.b64encode(image).decode(), "text": "x", "probabilities": chances}
    changed(folder, golden=[one] * count)


def _sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _file(folder: Path, **more: Any) -> dict[str, Any]:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    return files | {MODEL: files[MODEL] | more}


def _hash(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[1000] ^= 1
    (folder / MODEL).write_bytes(data)


def _elsewhere(folder: Path) -> None:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    changed(folder, files=files | {"../../evil.py": files[MODEL]})


def _nested(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    more = '"deep": ' + "[" * 400_000 + "]" * 400_000
    (folder / MANIFEST).write_text(text.replace("{", "{" + more + ",", 1), encoding="utf-8")


def _version(folder: Path, name: bytes) -> None:
    """Make the folder a bundle whose current version is one of this name."""
    (folder / MANIFEST).rename(folder / "gone")
    (folder / CURRENT).write_bytes(name)


CASES: dict[str, Case] = {
    "fine: nothing": lambda _: None,
    "wrong hash": _hash,
    "model of a terabyte": lambda f: _sparse(f / MODEL),
    "model of a stated terabyte": lambda f: (
        _sparse(f / MODEL),
        changed(f, files=_file(f, bytes=1 << 40)),
    ),
    "manifest of a terabyte": lambda f: _sparse(f / MANIFEST),
    "manifest that is a pipe": lambda f: _pipe(f / MANIFEST),
    "model that is a pipe": lambda f: (_pipe(f / MODEL), changed(f, files=_file(f, bytes=0))),
    "model that is a device": lambda f: (
        _link(f / MODEL, "/dev/zero"),
        changed(f, files=_file(f, bytes=0)),
    ),
    "manifest that is a link to a device": lambda f: _link(f / MANIFEST, "/dev/zero"),
    "manifest that is a link to /etc/passwd": lambda f: _link(f / MANIFEST, "/etc/passwd"),
    "model that is a link to /etc/passwd": lambda f: _link(f / MODEL, "/etc/passwd"),
    "current version elsewhere": lambda f: _version(f, b"../../../etc"),
    "current version of a terabyte": lambda f: (_version(f, b"x"), _sparse(f / CURRENT)),
    "current version in no encoding": lambda f: _version(f, b"\xff\xfe\0"),
    "file elsewhere": _elsewhere,
    "name elsewhere": lambda f: changed(f, name="../../evil"),
    "charset too long": lambda f: changed(f, charset="0123456789abcdefghijklmnopqrstuvwxyz-"),
    "charset too short": lambda f: changed(f, charset="0123456789", golden=[]),
    "charset of half characters": lambda f: changed(f, charset="a\ud800"),
    "charset of 4,096 characters": lambda f: changed(
        f, charset="".join(chr(0x4E00 + i) for i in range(4096)), golden=[]
    ),
    "length of 10^400": lambda f: changed(f, length=10**400),
    "temperature that is no number": lambda f: changed(f, temperature=float("nan")),
    "temperature of 10^-300": lambda f: changed(f, temperature=1e-300),
    "probabilities of 10^400": lambda f: changed(
        f, golden=[{"image": "", "text": "", "probabilities": [[10**400] * 36] * 4}]
    ),
    "nested 400,000 deep": _nested,
    "fine: provenance of a megabyte": lambda f: changed(f, provenance={"x": [[]] * 200_000}),
    "golden image of 9400x9400": lambda f: golden(f, png((9400, 9400)), 1),
    "golden images without end": lambda f: golden(f, png((90, 32)), 300),
    "fine: golden images of 2 MP": lambda f: golden(f, png(LARGEST, colour=6, row=b"\4" * 8001), 8),
    "bytes that are no model": lambda f: replaced(f, MODEL, b"TFL3 nonsense"),
    "a model that is a pickle": lambda f: replaced(f, MODEL, b"cos\nsystem\n(S'false'\ntR."),
    "a model that is HDF5": lambda f: replaced(f, MODEL, b"\x89HDF\r\n\x1a\n" + bytes(4096)),
    "a model of 60 MB of nothing": lambda f: replaced(f, MODEL, bytes(60 << 20)),
    "a model cut off": lambda f: replaced(f, MODEL, (f / MODEL).read_bytes()[:200_000]),
}


# -- one side and the other


def judged(load: Callable[[], Any]) -> dict[str, Any]:
    """Load something and note what came of it."""
    forget_peak()
    before, wall, processor = memory("VmRSS"), time.perf_counter(), time.process_time()
    try:
        load()
    except BundleError as e:
        outcome, said = "refused", str(e)
    except BaseException as e:  # noqa: BLE001 - that is what is looked for
        outcome, said = "error", f"{type(e).__name__}: {e}"
    else:
        outcome, said = "loaded", ""
    return {
        "outcome": outcome,
        "said": said[-160:],
        "cpu_ms": round((time.process_time() - processor) * 1000, 1),
        "wall_ms": round((time.perf_counter() - wall) * 1000, 1),
        "mb": round(memory("VmHWM") - before, 1),
    }


def forked(load: Callable[[], Any]) -> dict[str, Any]:
    """The same in a child that may die or hang."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(HANGS)
        os.write(theirs, json.dumps(judged(load)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"outcome": "died", "said": f"status {status}"}


def crawl_side(only: str, work: Path) -> list[dict[str, Any]]:
    """Load each bundle as a crawl would."""
    from hostile_graphs import GRAPHS  # noqa: PLC0415

    reader = Recognizer.load(BASE)
    reader.read(png((90, 32)))
    model = (resolve(BASE) / MODEL).read_bytes()
    cases = dict(CASES)
    for name, evil in GRAPHS.items():
        cases[f"graph: {name}"] = lambda f, evil=evil: (
            replaced(f, MODEL, evil(model)),
            changed(f, golden=[]),
        )
    found = []
    for number, (name, case) in enumerate(cases.items()):
        if only not in name:
            continue
        folder = work / f"{number}" / "bundle"
        shutil.copytree(resolve(BASE), folder)
        case(folder)
        found.append({"name": name} | forked(lambda folder=folder: Recognizer.load(folder)))
        shutil.rmtree(folder)
    return found


def trainer_side(only: str, work: Path) -> list[dict[str, Any]]:
    """Load each ``weights.keras`` as a training would."""
    from hostile_weights import WEIGHTS_FILES  # noqa: PLC0415

    from trainer.weights import load_weights  # noqa: PLC0415

    bundle = open_bundle(BASE)
    content = bundle.read(WEIGHTS)
    load_weights(content, bundle.manifest)
    found = []
    for name, evil in WEIGHTS_FILES.items():
        if only in name:
            damaged = evil(content, work / "evil")
            found.append(
                {"name": f"weights: {name}"}
                | judged(lambda damaged=damaged: load_weights(damaged, bundle.manifest))
            )
    return found


def main() -> int:
    """Parse the options, load all and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a part of the names of those to load")
    parser.add_argument("--side", choices=("crawl", "trainer", "both"), default="both")
    parser.add_argument("--limit-ms", type=float, default=1000, help="of the processor, each")
    parser.add_argument("--limit-mb", type=float, default=50)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for name, side in (("crawl", crawl_side), ("trainer", trainer_side)):
            if options.side in (name, "both"):
                found += side(options.only, Path(work))
        left = sorted(path.name for path in Path(work).iterdir() if not path.name.isdigit())
    for each in found:
        print(json.dumps(each))
    failed = [
        each["name"]
        for each in found
        if each["outcome"] != ("loaded" if each["name"].startswith("fine") else "refused")
        or each["cpu_ms"] > options.limit_ms
        or each["mb"] > options.limit_mb
    ]
    worst = {key: max(found, key=lambda each: each.get(key, 0.0)) for key in ("cpu_ms", "mb")}
    print(json.dumps({"models": len(found), "failed": failed, "left": left, "worst": worst}))
    return int(bool(failed or left or not found))


if __name__ == "__main__":
    sys.exit(main())

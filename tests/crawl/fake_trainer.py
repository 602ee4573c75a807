"""A trainer that learns nothing: it speaks the protocol and hands out a bundle that is there.

python fake_trainer.py BUNDLE NOTES [--die-at N] [--hang-at N] [--calibrated] --base BASE

NOTES gets a JSON line with its process id when it starts, and one for each request and each answer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from scrapy_captcha.bundle import MODEL, WEIGHTS, open_bundle
from scrapy_captcha.versions import write_version


def train(request: dict[str, Any], bundle: str, calibrated: bool) -> dict[str, Any]:
    given = open_bundle(bundle)
    calibration = {"method": "here", "n": 100} if calibrated else {"method": "inherited"}
    manifest = replace(given.manifest, calibration=calibration)
    out = Path(request["out"])
    files = {name: given.read(name) for name in (MODEL, WEIGHTS)}
    while True:
        taken = set(out.iterdir()) if out.is_dir() else set()
        version = write_version(out, manifest, files, promoted=False)
        if version not in taken:
            break
        time.sleep(0.1)  # two of one second would have one name
    labels = len(list(Path(request["dataset"]).glob("confirmed/*")))
    return {"event": "trained", "version": version.name, "labels": labels, "better": None}


def end_with_input(requests: list[str], there: threading.Condition) -> None:
    for line in sys.stdin:
        with there:
            requests.append(line)
            there.notify()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("notes", type=Path)
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--hang-at", type=int, default=0)
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--base")
    options = parser.parse_args()

    def note(what: dict[str, Any]) -> int:
        with options.notes.open("a") as f:
            f.write(json.dumps(what) + "\n")
        return sum("dataset" in line for line in options.notes.read_text().splitlines())

    note({"pid": os.getpid(), "base": options.base})
    requests: list[str] = []
    there = threading.Condition()
    threading.Thread(target=end_with_input, args=(requests, there), daemon=True).start()
    print("a library says hello", flush=True)
    print(json.dumps({"event": "ready"}), flush=True)
    while True:
        with there:
            there.wait_for(lambda: requests)
            request = json.loads(requests.pop(0))
        count = note(request)
        if count == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == options.hang_at:
            time.sleep(3600)
        try:
            said = train(request, options.bundle, options.calibrated)
        except Exception as e:  # noqa: BLE001 - whatever it is, it is the answer
            said = {"event": "failed", "error": repr(e)}
        print(json.dumps(said), flush=True)
        note({"answered": said})


if __name__ == "__main__":
    main()

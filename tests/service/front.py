"""A front with readers that do as their images say, to be killed: ``front.py IMAGE``.

It prints its readers' numbers once they are up and have the image, if there is one.
"""

from __future__ import annotations

import asyncio
import sys

import pytest
from pooling import running, until, use_fragile_readers


async def main(image: bytes) -> None:
    async with running(readers=2, stuck=1.0) as trial:
        if image:
            asked = [trial.asked(image) for _ in trial.pool.pids]
            assert asked
            await until(lambda: trial.count("being_read_images") == 2)
        print(*trial.pool.pids, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_fragile_readers(monkeypatch)
        asyncio.run(main(sys.argv[1].encode()))

"""A reader that does as its images say, as a hostile one would make it do.

``die`` ends the process, ``hang`` never returns and lets nothing else run, ``babble`` says what is
no message, ``fail`` raises what nobody expects; other images are read.
"""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

from scrapy_captcha.service import reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scrapy_captcha.recognizer import Recognition
    from scrapy_captcha.service.messages import Answer, Task

read = reader.answer


class Broken:
    def read(self, *arguments: object) -> Recognition:
        raise RuntimeError("nobody expects this")


def answer(models: Sequence[reader.LoadedModel], task: Task) -> Answer:
    if task.image == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task.image == b"hang":
        re.match(r"(a+)+$", "a" * 100 + "b")  # holds the GIL for as long as anybody lives
    elif task.image == b"babble":
        os.write(0, b"\0\0\0\4what")
    elif task.image == b"fail":
        models[task.model].recognizer = Broken()  # type: ignore[assignment]
    return read(models, task)


reader.answer = answer

if __name__ == "__main__":
    reader.main()

"""The article's web service, written anew from its description: the peer of benchmarks/service.py.

    python benchmarks/article_server.py [--port 8091]

Flask under gevent's WSGI server. `POST /captcha` takes base64 as JSON {"pic": ...} or as
text/plain, writes the image into a temporary file, reads that with `model.predict` on a batch of
one, and answers {"status": "OK", "result": ...} or {"status": "NO", "msg": ...}. The network is the
article's with weights as they are at first: its speed is measured, not its answers.

gevent patches nothing: with `monkey.patch_all()` a prediction gives way to another request in its
middle, and TensorFlow fails ("only supports Python-style iteration in eager mode") as soon as two
come at once.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from flask import Flask, request
from gevent.pywsgi import WSGIServer
from PIL import Image, UnidentifiedImageError

from scrapy_captcha.image import HEIGHT, WIDTH
from trainer.drawing import ALNUM
from trainer.quiet import import_tensorflow

import_tensorflow()

from trainer.networks import build  # noqa: E402

if TYPE_CHECKING:
    import keras

LENGTH = 4


def read(model: keras.Model, image: bytes) -> str:
    """Read an image, by way of a file.

    Args:
        model: the article's network.
        image: the file's bytes.

    Raises:
        UnidentifiedImageError: when it is no image.

    """
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(image)
        file.flush()
        with Image.open(file.name) as opened:
            grey = opened.convert("L").resize((WIDTH, HEIGHT))
    pixels = np.asarray(grey, np.float32)[None, ..., None] / np.float32(255)
    logits = model.predict(pixels, verbose=0)
    return "".join(ALNUM[kind] for kind in logits[0].argmax(-1))


def create_app() -> Flask:
    """The service, with its network loaded and traced."""
    app = Flask(__name__)
    model = build("four_head_vgg", heads=LENGTH, classes=len(ALNUM))
    model.predict(np.zeros((1, HEIGHT, WIDTH, 1), np.float32), verbose=0)

    @app.post("/captcha")
    def captcha() -> dict[str, Any]:
        if request.mimetype == "application/json":
            text = request.get_json().get("pic", "")
        elif request.mimetype == "text/plain":
            text = request.get_data(as_text=True)
        else:
            return {"status": "NO", "msg": "expected application/json or text/plain"}
        try:
            return {"status": "OK", "result": read(model, base64.b64decode(text))}
        except (ValueError, UnidentifiedImageError) as e:
            return {"status": "NO", "msg": str(e)}

    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8091)
    port = parser.parse_args().port
    WSGIServer(("127.0.0.1", port), create_app(), log=None).serve_forever()


if __name__ == "__main__":
    main()

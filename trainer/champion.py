"""The version that a new one has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scrapy_captcha.bundle import MODEL, Bundle, is_bundle, open_bundle
from scrapy_captcha.errors import BundleError
from scrapy_captcha.graph import check_graph
from scrapy_captcha.recognizer import decode_logits
from trainer.conversion import litert_logits
from trainer.finish import SEEN
from trainer.gate import Comparison, compare
from trainer.plan import MIN_HOLDOUT, mark

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from scrapy_captcha.bundle import Manifest
    from scrapy_captcha.recognizer import Recognition
    from trainer.corpus import Corpus
    from trainer.rejections import Rejected

#: More rejected images than this are not looked at.
MAX_REJECTIONS = 1000


def present(out: Path) -> Bundle | None:
    """The current version of a bundle that can be read; ``None`` if there is none.

    What is damaged, or was made for another preprocessing, defends nothing.
    """
    if not is_bundle(out):
        return None
    try:
        bundle = open_bundle(out)
        _model(bundle)
    except BundleError:
        return None
    return bundle


def _model(bundle: Bundle) -> bytes:
    """A bundle's model file, checked before LiteRT gets it."""
    content = bundle.read(MODEL)
    check_graph(content, bundle.manifest.length, bundle.manifest.classes)
    return content


def readings(
    bundle: Bundle, manifest: Manifest, images: Iterable[NDArray[np.floating[Any]]]
) -> list[Recognition] | None:
    """What a bundle reads, told the charset and length of another one's task.

    Args:
        bundle: what reads.
        manifest: of the other one.
        images: prepared, float arrays of shape (32, 90).

    Returns:
        ``None`` if it cannot read such texts.
    """
    length = manifest.length if manifest.length == manifest.min_length else None
    logits = litert_logits(_model(bundle), images)
    try:
        return [decode_logits(row, bundle.manifest, manifest.charset, length) for row in logits]
    except ValueError:
        return None


def judge(
    champion: Bundle,
    manifest: Manifest,
    content: bytes,
    held: Corpus | None,
    rejected: Rejected | None,
) -> Comparison | None:
    """Compare a challenger with the champion on what neither was trained on.

    Args:
        champion: the version that it would replace.
        manifest: of the challenger.
        content: its model file.
        held: the holdout, if there is one.
        rejected: rejected images that it was not trained on.

    Returns:
        ``None`` if there are too few images that the champion was not trained on.
    """
    if held is None:
        return None
    seen = set(champion.manifest.provenance.get(SEEN, ()))
    held = held.pick(np.array([mark(sample) not in seen for sample in held.samples], bool))
    if len(held.samples) < MIN_HOLDOUT:
        return None
    known = rejected.texts[:MAX_REJECTIONS] if rejected else ()
    images = [*held.images, *(rejected.images[:MAX_REJECTIONS] if rejected else ())]
    ours = [decode_logits(row, manifest).text for row in litert_logits(content, images)]
    read = readings(champion, manifest, images)
    theirs = [each.text for each in read] if read else [None] * len(images)
    n = len(held.samples)
    others = list(zip(theirs[n:], ours[n:], known, strict=True))
    return compare(theirs[:n], ours[:n], held.labels, others)

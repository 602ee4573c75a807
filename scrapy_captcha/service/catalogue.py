"""What each model of a service can read, for clients that check it before they ask."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy_captcha.bundle import open_bundle
from scrapy_captcha.errors import BundleError
from scrapy_captcha.recognizer import ANY_LENGTH, AUTO, FOUR

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Catalogue:
    """Describes the models as they are on disk, where promoted versions appear.

    :param models: name -> bundle
    """

    def __init__(self, models: Mapping[str, str]) -> None:
        self._models = models
        self._known: dict[str, dict[str, Any]] = {}

    def describe(self) -> list[dict[str, Any]]:
        """Each model's name, charset, lengths, case and hash, the default first.

        A model whose new version is damaged is described as before: so it also reads.
        """
        for name, bundle in self._models.items():
            try:
                self._known[name] = {"name": name, **_described(bundle)}
            except BundleError as e:
                logger.error(
                    "The model %(name)s cannot be described: %(error)s", {"name": name, "error": e}
                )
        return [self._known[name] for name in self._models if name in self._known]


def _described(source: str) -> dict[str, Any]:
    names = (ANY_LENGTH, FOUR) if source == AUTO else (source,)
    bundles = [open_bundle(name) for name in names]
    manifest = bundles[0].manifest
    return {
        "charset": manifest.charset,
        "length": manifest.length,
        "min_length": manifest.min_length,
        "case": manifest.case,
        "model_hash": "+".join(bundle.hash for bundle in bundles),
    }

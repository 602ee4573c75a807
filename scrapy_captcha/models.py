"""Which model reads which site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_captcha.bundle import is_bundle, open_bundle
from scrapy_captcha.errors import ConfigError
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import Recognizer, allowed_classes, check_length, load_reader

if TYPE_CHECKING:
    from pathlib import Path

    from scrapy_captcha.config import Settings, SiteRule
    from scrapy_captcha.recognizer import Reader


class Readers:
    """Loads each model once, however many sites it reads; what it learns of lengths is per site."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[Path, Recognizer] = {}

    def for_rule(self, rule: SiteRule) -> Reader:
        """The rule's model, else the one that the site's own data trained, else the default.

        :raises BundleError: when the model cannot be loaded
        :raises ConfigError: when it cannot read the rule's charset or length
        """
        reader = load_reader(self._name(rule), rule.length, self._load, remembers=True)
        try:
            check_length(reader.manifest, rule.length)
            allowed_classes(reader.manifest, rule.charset)
        except ValueError as e:
            raise ConfigError(f"CAPTCHA_SITES[{rule.site!r}]: {e}") from None
        return reader

    def _load(self, name: str) -> Recognizer:
        bundle = open_bundle(name)
        if bundle.folder not in self._loaded:
            self._loaded[bundle.folder] = Recognizer(bundle)
        return self._loaded[bundle.folder]

    def _name(self, rule: SiteRule) -> str:
        if rule.model is not None:
            return rule.model
        if self._settings.dataset is not None:
            own = self._settings.dataset / (rule.dataset or site_folder(rule.site)) / "model"
            if is_bundle(own):
                return str(own)
        return self._settings.model

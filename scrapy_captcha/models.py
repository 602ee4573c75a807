"""Which model reads which site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_captcha.bundle import is_bundle, open_bundle
from scrapy_captcha.endpoint import is_service
from scrapy_captcha.errors import ConfigError, ServiceError
from scrapy_captcha.lineup import Arm
from scrapy_captcha.naming import site_folder
from scrapy_captcha.recognizer import (
    ANY_LENGTH,
    FOUR,
    FOUR_LENGTH,
    EitherRecognizer,
    Recognizer,
    allowed_classes,
    check_length,
    load_reader,
)
from scrapy_captcha.remote import TIMEOUT, RemoteReader

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from scrapy_captcha.config import Settings, SiteRule
    from scrapy_captcha.recognizer import Reader

#: In a site's folder, the bundle that its own data trains.
OWN = "model"


class Readers:
    """Loads each model once, however many sites it reads; what it learns of lengths is per site."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[Path, Recognizer] = {}
        self._services: dict[str, RemoteReader] = {}

    def for_rule(self, rule: SiteRule) -> Reader:
        """The rule's model, else the one that the site's own data trained, else the default.

        :raises BundleError: when the model cannot be loaded
        :raises ConfigError: when it cannot read the rule's charset or length, or is a service that
            is not reached or does not let us in
        """
        reader = self._open(self._name(rule), rule)
        try:
            check_rule(reader, rule)
        except ValueError as e:
            raise ConfigError(f"CAPTCHA_SITES[{rule.site!r}]: {e}") from None
        return reader

    def arm(self, rule: SiteRule) -> Arm:
        """The same, with what is known of it."""
        reader = self.for_rule(rule)
        if isinstance(reader, Recognizer) and reader.bundle.folder.parent == self._own(rule):
            return _own_arm(reader)
        return Arm(reader, reader.manifest.charset)

    def default(self, rule: SiteRule) -> Arm:
        """What reads a site that has no model of its own.

        :raises BundleError: when it cannot be loaded
        :raises ValueError: when it cannot read the rule's charset or length
        """
        reader = self._open(self._settings.model, rule)
        check_rule(reader, rule)
        return Arm(reader, reader.manifest.charset)

    def close(self) -> None:
        """Close the connections to services."""
        for reader in self._services.values():
            reader.close()

    def _open(self, name: str, rule: SiteRule) -> Reader:
        if not is_service(name):
            return load_reader(name, rule.length, self._load, remembers=True)
        if name not in self._services:
            token, timeout = self._settings.service_token, min(TIMEOUT, self._settings.timeout)
            try:
                self._services[name] = RemoteReader.connect(name, token, timeout)
            except (ConfigError, ServiceError) as e:
                where = "CAPTCHA_MODEL"
                if rule.model is not None:
                    where = f"CAPTCHA_SITES[{rule.site!r}]['model']"
                raise ConfigError(f"{where}: {e}") from None
        return self._services[name]

    def _load(self, name: str) -> Recognizer:
        bundle = open_bundle(name)
        if bundle.folder not in self._loaded:
            self._loaded[bundle.folder] = Recognizer(bundle)
        return self._loaded[bundle.folder]

    def _name(self, rule: SiteRule) -> str:
        if rule.model is not None:
            return rule.model
        own = self._own(rule)
        return str(own) if own is not None and is_bundle(own) else self._settings.model

    def _own(self, rule: SiteRule) -> Path | None:
        """Where the bundle is that the site's own data trains; there may be none yet."""
        if self._settings.dataset is None:
            return None
        folder = self._settings.dataset.expanduser().absolute()
        return folder / (rule.dataset or site_folder(rule.site)) / OWN


def open_challenger(model: Path, version: str, rule: SiteRule) -> Arm:
    """Load a version of a site's own bundle.

    :raises BundleError: when it cannot be loaded
    :raises ValueError: when it cannot read the rule's charset or length
    """
    reader = Recognizer(open_bundle(model / version))
    check_rule(reader, rule)
    return _own_arm(reader)


def check_rule(reader: Reader, rule: SiteRule) -> None:
    """Raise ``ValueError`` when a reader cannot read what a rule says."""
    check_length(reader.manifest, rule.length)
    allowed_classes(reader.manifest, rule.charset)


def _own_arm(reader: Recognizer) -> Arm:
    manifest = reader.manifest
    # without a holdout of the site's the confidence is as its base's was
    calibrated = "n" in manifest.calibration
    return Arm(reader, manifest.charset, reader.bundle.folder.name, calibrated)


def base_of(reader: Reader, lengths: Collection[int]) -> str:
    """The bundle that a site's own model is trained from: that of its reader.

    :param lengths: of the texts that are known, which settle it between the two default models
    """
    if isinstance(reader, EitherRecognizer):
        return FOUR if set(lengths) <= {FOUR_LENGTH} else ANY_LENGTH
    assert isinstance(reader, Recognizer)
    return str(reader.bundle.folder.absolute())

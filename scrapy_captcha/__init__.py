"""Scrapy middleware that gets a crawl past text-image captchas, and learns from the answers."""

from __future__ import annotations

from scrapy_captcha.errors import (
    BundleError,
    CaptchaError,
    CaptchaUnsolved,
    ConfigError,
    DatasetError,
    ImageError,
)
from scrapy_captcha.recognizer import Recognition, Recognizer

__all__ = [
    "BundleError",
    "CaptchaError",
    "CaptchaUnsolved",
    "ConfigError",
    "DatasetError",
    "ImageError",
    "Recognition",
    "Recognizer",
]

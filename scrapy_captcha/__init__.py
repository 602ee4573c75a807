"""Scrapy middleware that gets a crawl past text-image captchas, and learns from the answers."""

from __future__ import annotations

from scrapy_captcha.addon import Addon
from scrapy_captcha.errors import (
    BundleError,
    CaptchaError,
    CaptchaUnsolved,
    ConfigError,
    DatasetError,
    ImageError,
    ServiceError,
)
from scrapy_captcha.middleware import CaptchaMiddleware
from scrapy_captcha.query import captcha_form
from scrapy_captcha.recognizer import Recognition, Recognizer
from scrapy_captcha.redirect import CaptchaRedirectMiddleware

__all__ = [
    "Addon",
    "BundleError",
    "CaptchaError",
    "CaptchaMiddleware",
    "CaptchaRedirectMiddleware",
    "CaptchaUnsolved",
    "ConfigError",
    "DatasetError",
    "ImageError",
    "Recognition",
    "Recognizer",
    "ServiceError",
    "captcha_form",
]

"""The exceptions that scrapy-captcha raises, in one place."""

from __future__ import annotations

from scrapy.exceptions import IgnoreRequest


class CaptchaError(Exception):
    """Anything that goes wrong in scrapy-captcha."""


class ConfigError(CaptchaError, ValueError):
    """A setting or a rule that makes no sense; the message names the key."""


class ImageError(CaptchaError, ValueError):
    """Bytes that are not an image this package is willing to decode."""


class BundleError(CaptchaError, ValueError):
    """A model on disk that is missing, damaged or not what it says."""


class ServiceError(CaptchaError):
    """A service that was to read images was not reached, or did not read them."""


class DatasetError(CaptchaError, OSError):
    """The labelled dataset could not be read or written."""


class CaptchaUnsolved(CaptchaError, IgnoreRequest):  # noqa: N818
    """The page of a request stayed behind its captcha; it reaches the errback.

    :param reason: one of the reasons counted as ``captcha/failed/<reason>``, or
        ``attempts``, ``timeout``, ``breaker_open``, ``closing`` or ``not_listed``
    :param detail: what happened, for the log
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class AttemptFailed(CaptchaError):  # noqa: N818 - an outcome
    """An attempt came to nothing before the site gave a verdict.

    :param reason: counted as ``captcha/failed/<reason>``
    :param final: whether every other attempt would fail in the same way
    """

    def __init__(self, reason: str, detail: str, *, final: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.final = final

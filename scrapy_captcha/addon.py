"""One-line enabling: ``ADDONS = {"scrapy_captcha.Addon": 500}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy.exceptions import NotConfigured

from scrapy_captcha.middleware import CaptchaMiddleware
from scrapy_captcha.redirect import CaptchaRedirectMiddleware

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings


class Addon:
    """Puts the two downloader middlewares where they belong, unless the user has placed them."""

    def update_settings(self, settings: BaseSettings) -> None:
        """Enable the middlewares.

        :raises NotConfigured: when ``CAPTCHA_SITES`` lists no site
        """
        if not settings.get("CAPTCHA_SITES"):
            raise NotConfigured("CAPTCHA_SITES lists no site")
        for component, priority in ((CaptchaMiddleware, 560), (CaptchaRedirectMiddleware, 610)):
            settings.setdefault_in_component_priority_dict(
                "DOWNLOADER_MIDDLEWARES", component, priority
            )

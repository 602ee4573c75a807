from __future__ import annotations

import pytest
from scrapy.exceptions import NotConfigured
from scrapy.settings import Settings

from scrapy_captcha import Addon, CaptchaMiddleware, CaptchaRedirectMiddleware

PLACES = "DOWNLOADER_MIDDLEWARES"


def test_it_puts_both_middlewares_in_their_places() -> None:
    settings = Settings({"CAPTCHA_SITES": {"shop.example": {}}})
    Addon().update_settings(settings)
    places = settings.getdict(PLACES)
    assert places[CaptchaMiddleware] == 560
    assert places[CaptchaRedirectMiddleware] == 610


@pytest.mark.parametrize("key", [CaptchaMiddleware, "scrapy_captcha.CaptchaMiddleware"])
def test_a_place_that_the_user_chose_stays(key: object) -> None:
    settings = Settings({"CAPTCHA_SITES": {"shop.example": {}}, PLACES: {key: 555}})
    Addon().update_settings(settings)
    places = settings.getdict(PLACES)
    assert places[key] == 555
    assert list(places.values()).count(560) == 0
    assert places[CaptchaRedirectMiddleware] == 610


@pytest.mark.parametrize("sites", [None, {}, ""])
def test_without_sites_it_is_not_configured(sites: object) -> None:
    settings = Settings({"CAPTCHA_SITES": sites})
    with pytest.raises(NotConfigured):
        Addon().update_settings(settings)
    assert settings.getdict(PLACES) == {}

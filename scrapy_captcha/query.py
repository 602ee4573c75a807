"""What a spider writes to submit a form that asks for a captcha each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cssselect import SelectorError
from scrapy import Request

from scrapy_captcha.selectors import selector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scrapy.http import Response

#: Key in the meta of a query: a dict with ``formdata`` and ``form``, plain types for JOBDIR.
META = "captcha_form"
# HttpProxyMiddleware has taken the credentials out of the proxy's URL
_SESSION = ("cookiejar", "proxy", "_auth_proxy")


def captcha_form(
    response: Response,
    formdata: Mapping[str, str],
    callback: Callable[..., Any] | None = None,
    errback: Callable[..., Any] | None = None,
    *,
    form: str | None = None,
    meta: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Request:
    """Submit a form whose captcha has to be answered each time.

    The middleware fetches the form's page again, fills in ``formdata`` and the answer, submits,
    and tries again with a new image when the site says no; ``callback`` gets the page that
    answers the query, ``errback`` a :class:`~scrapy_captcha.CaptchaUnsolved`.

    >>> def parse(self, response):
    ...     yield captcha_form(response, {"name": "Ada"}, callback=self.parse_result)

    :param response: a page with the form; its session (``cookiejar``, ``proxy``) is used
    :param formdata: the form's fields by name, without the captcha's
    :param form: CSS of the form, when the page has several with a captcha
    :raises TypeError: when a value in ``formdata`` is not a text
    :raises ValueError: when ``form`` is no CSS selector that a rule could have
    :param kwargs: as for :class:`scrapy.Request`: ``cb_kwargs``, ``priority`` ...
    """
    if (meta or {}).get("captcha") is False:
        raise ValueError("captcha_form cannot opt out of the captcha: drop meta['captcha']")
    strange = [name for name, value in formdata.items() if not isinstance(value, str)]
    if strange:
        raise TypeError(f"expected texts in formdata, got another type for {', '.join(strange)}")
    try:
        if form is not None:
            selector(form)
    except SelectorError as e:
        raise ValueError(f"expected a CSS selector as form ({e}), got {form!r}") from None
    session: dict[str, Any] = {key: response.meta[key] for key in _SESSION if key in response.meta}
    query = {"formdata": dict(formdata), "form": form}
    request = Request(
        response.url,
        callback=callback,
        errback=errback,
        # the form's page and each answer share a URL: neither a duplicate nor worth a cache
        dont_filter=True,
        meta={**session, **(meta or {}), META: query, "dont_cache": True},
        **kwargs,
    )
    credentials = response.request and response.request.headers.get("Proxy-Authorization")
    if credentials and request.meta.get("proxy") == response.meta.get("proxy"):
        request.headers.setdefault("Proxy-Authorization", credentials)
    return request

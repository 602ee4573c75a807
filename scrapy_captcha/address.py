"""Where our own requests may go: http(s), the page's own host, and what the user named."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from scrapy.utils.httpobj import urlparse_cached
from scrapy.utils.url import strip_url
from w3lib.url import safe_url_string

from scrapy_captcha.errors import AttemptFailed
from scrapy_captcha.patterns import PatternTimeout

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.http import Response

    from scrapy_captcha.config import SiteRule

REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Longer ones are none that a server takes, but some that take long to encode.
MAX_URL = 64 << 10
MAX_NETLOC = 300
_PORTS = {"http": 80, "https": 443}


def netloc_of(request: Request) -> str:
    """Host and port of a request, parsed once."""
    return urlparse_cached(request).netloc


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and effective port of a URL; ``ValueError`` when it has a broken port."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def same_origin(url: str, other: str) -> bool:
    """Whether two URLs share scheme, host and port."""
    return origin(url) == origin(other)


def same_page(url: str, other: str) -> bool:
    """Whether two URLs ask for the same page; fragments don't count."""
    a, b = urlsplit(url), urlsplit(other)
    return (origin(url), a.path or "/", a.query) == (origin(other), b.path or "/", b.query)


def check_allowed(url: str, page_url: str, what: str, hosts: frozenset[str] = frozenset()) -> None:
    """Refuse any URL but http(s) on the page's own host and port, or on one of ``hosts``.

    An upgrade to https on the default ports is allowed.

    :param what: first part of the failure's reason: ``image``, ``form`` or ``redirect``
    :raises AttemptFailed: ``<what>_scheme`` or ``<what>_host``
    """
    try:
        if len(url) > MAX_URL or len(urlsplit(url).netloc) > MAX_NETLOC:
            raise ValueError
        sent = safe_url_string(url)  # as a request will have it
        scheme, host, port = origin(sent)
        names_user = "@" in urlsplit(sent).netloc
    except ValueError:
        raise AttemptFailed(f"{what}_host", f"not a URL: {url[:200]!r}", final=True) from None
    page_scheme, page_host, page_port = origin(page_url)
    if scheme not in _PORTS or (page_scheme == "https" and scheme == "http"):
        raise AttemptFailed(f"{what}_scheme", f"{url[:200]!r} from {page_url}", final=True)
    upgrade = (page_scheme, page_port, scheme, port) == ("http", 80, "https", 443)
    same = host == page_host and (port == page_port or upgrade)
    listed = not hosts.isdisjoint(_names(host, port))
    if names_user or not (same or listed):
        raise AttemptFailed(f"{what}_host", f"{url[:200]!r} from {page_url}", final=True)


def _names(host: str, port: int | None) -> tuple[str, str]:
    """A host with and without its port, as they are written into rules."""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}", host


def is_of_site(url: str, site: str) -> bool:
    """Whether a page is of a listed site: a host, host:port or parent domain."""
    try:
        _, host, port = origin(url)
    except ValueError:
        return False
    return site in _names(host, port) or host.endswith(f".{site}")


def referer(url: str, target: str) -> str:
    """What a request says of the page it comes from: to another origin, the page's origin alone."""
    return strip_url(safe_url_string(url), origin_only=not same_origin(url, target))


def check_form(rule: SiteRule, url: str, page_url: str) -> None:
    """Refuse to submit to another host than the form's page, unless the rule's ``submit`` names it.

    :raises AttemptFailed: ``form_scheme`` or ``form_host``
    """
    check_allowed(url, page_url, "form", named_hosts(rule.submit))


def named_hosts(url: str | None) -> frozenset[str]:
    """The host of a URL that the user wrote into the rule, which is allowed for that reason."""
    if url is None or "//" not in url:
        return frozenset()
    _, host, port = origin(url)
    return frozenset(_names(host, port)[:1])


def is_redirect(response: Response) -> bool:
    """Whether a response sends us elsewhere."""
    return response.status in REDIRECTS and "Location" in response.headers


def redirect_target(response: Response) -> str | None:
    """Absolute URL that a response redirects to; as it stands there if it is broken."""
    if not is_redirect(response):
        return None
    location = response.headers["Location"]
    assert location is not None
    try:
        return urljoin(response.url, safe_url_string(location))
    except ValueError:
        return location.decode("latin-1")


def leads_to_wall(response: Response, rule: SiteRule) -> bool:
    """Whether the rule's ``redirect`` says that this redirect leads to a wall.

    :raises AttemptFailed: ``pattern``, when that cannot be told in time
    """
    if rule.redirect is None or not is_redirect(response):
        return False
    location = response.headers["Location"] or b""
    try:
        return rule.redirect.search(location.decode("latin-1"))
    except PatternTimeout as e:
        raise AttemptFailed("pattern", f"{e}: a redirect of {response.url}", final=True) from None

"""Signals that a crawl sends; connect to them through ``crawler.signals``.

``challenge_detected(request, response, site)``
    a page turned out to be a wall.
``attempt_finished(site, verdict, recognition, detail)``
    an answer was judged; verdict is "accepted", "rejected", "skipped" or "failed"; recognition is
    a :class:`~scrapy_captcha.Recognition`, or ``None`` when it failed before reading.
``challenge_solved(request, response, site)``
    a wall has been passed; response is the page that was asked for.
``challenge_failed(request, site, reason)``
    a wall could not be passed; the request is about to reach its errback.
``reader_changed(site, model, reason)``
    another model reads a site from now on; model is its hash, reason "promoted" or "rolled_back".
``site_quarantined(site, images)``
    the site's word does not count any more; so many confirmed images were taken back for it.
"""

from __future__ import annotations

challenge_detected = object()
attempt_finished = object()
challenge_solved = object()
challenge_failed = object()
reader_changed = object()
site_quarantined = object()

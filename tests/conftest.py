"""What every test needs."""

from __future__ import annotations

import os

# Scrapy's cookies look for the public suffix list; a test must not fetch it, nor what it starts
os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")

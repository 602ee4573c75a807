"""The reader over HTTP (extra ``serve``)."""

from __future__ import annotations

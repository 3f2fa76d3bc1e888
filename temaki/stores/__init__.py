"""The stores, and how a URL becomes one of them."""

from __future__ import annotations

from temaki.store import Location
from temaki.stores.urls import canonical_url, open_store, parse_url

__all__ = ["Location", "canonical_url", "open_store", "parse_url"]

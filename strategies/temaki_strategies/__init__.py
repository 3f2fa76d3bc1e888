"""The sync strategies that come with temaki. They are registered as a third party's strategies are."""

from temaki_strategies.always_download import AlwaysDownload
from temaki_strategies.etag_cached import EtagCached
from temaki_strategies.lease_locked import LeaseLocked
from temaki_strategies.read_only import ReadOnly

__all__ = ["AlwaysDownload", "EtagCached", "LeaseLocked", "ReadOnly"]

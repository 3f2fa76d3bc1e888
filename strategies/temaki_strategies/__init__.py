"""The sync strategies that come with temaki, registered like anyone else's."""

from temaki_strategies.always_download import AlwaysDownload
from temaki_strategies.etag_cached import EtagCached
from temaki_strategies.lease_locked import LeaseLocked
from temaki_strategies.read_only import ReadOnly

__all__ = ["AlwaysDownload", "EtagCached", "LeaseLocked", "ReadOnly"]

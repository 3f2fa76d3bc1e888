"""What is known of a version that is here: its head, and the pages of its segments."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temaki.errors import WorkingCopyError
from temaki.formats.pages.compose import Known
from temaki.formats.pages.head import Head, TailPage
from temaki.formats.pages.manifest import decode, encode
from temaki.formats.pages.pageimage import pack
from temaki.formats.pages.pageone import canonical

if TYPE_CHECKING:
    from temaki.formats.pages.pull import Pages
    from temaki.replica.generation import Generation


class PagesKnowledge:
    """What is known of a version that is here; see :class:`temaki.replica.generation.Knowledge`.

    Attributes:
        known: Its head, and which pages its segments have.
    """

    def __init__(self, known: Known) -> None:
        self.known = known

    def to_json(self) -> dict[str, Any]:
        """The manifest, and which pages are in the tail: their images are made again from the pages that are here."""
        head = self.known.head
        return {
            "head": encode(head.without_tail()).decode(),
            "tail": [[page.number, page.sequence] for page in head.tail],
        }

    @classmethod
    def of(cls, generation: Generation) -> Known | None:
        """What a generation knows of its version; None if it knows nothing. The replica's lock is held."""
        found = generation.knowledge
        if isinstance(found, dict):
            generation.knowledge = found = cls._from_json(found, generation)
        return found.known if isinstance(found, cls) else None

    @classmethod
    def _from_json(cls, facts: dict[str, Any], generation: Generation) -> PagesKnowledge | None:
        try:
            head = decode(facts["head"].encode())
            if generation.version is None or head.commit != generation.version.commit:
                return None
            local = local_pages(generation, head)
            tail = tuple(
                TailPage(number, sequence, pack(canonical(number, local.page(number))))
                for number, sequence in facts["tail"]
            )
            return cls(Known(decode(encode(replace(head, tail=tail)))))
        except (KeyError, TypeError, ValueError, AttributeError, OSError, WorkingCopyError):
            return None  # a full pull brings it


def local_pages(generation: Generation, head: Head) -> Pages:
    """The pages of a version that is here. The replica's lock is held."""
    return generation.acknowledged(head.page_count, head.page_size, head.sequence)

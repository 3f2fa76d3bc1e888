"""Says which object of a version cannot be used, and what to do about it.

A head is small and read often. Its base may be months old. So things happen to the objects beside a head that do not
happen to the head: a lifecycle rule removes or archives them, or a policy grants the key and not the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from temaki.errors import AccessDeniedError, CorruptDatabaseError, ObjectArchivedError
from temaki.formats.pages.names import folder, key_of
from temaki.formats.pages.objects import DamagedObjectError, MissingObjectError, corrupt

if TYPE_CHECKING:
    from temaki.formats.pages.head import Head
    from temaki.remote.fetch import Source

Blamed = MissingObjectError | DamagedObjectError | AccessDeniedError | ObjectArchivedError
BLAMED: Final = (MissingObjectError, DamagedObjectError, AccessDeniedError, ObjectArchivedError)
"""What can be wrong with an object, for an ``except`` clause."""


def blame(source: Source, head: Head | None, error: Blamed) -> Exception:
    """Make the error for a version of which an object cannot be used.

    Args:
        source: The head's object.
        head: The version, or the one that a commit replaces; None if it replaces none, or a plain file.
        error: What is wrong.

    Returns:
        An error that names object and version; ``error`` itself if it is not about an object beside the head.
    """
    if isinstance(error, AccessDeniedError):
        name = _name_of(source, error)
        return _denied(source, head, name, error) if name is not None and error.lacks_permission else error
    if head is None:
        return error
    if isinstance(error, MissingObjectError):
        return _missing(source, head, error.name)
    if isinstance(error, DamagedObjectError):
        return corrupt(source, head, error.name or None, error)
    name = _name_of(source, error)
    return error if name is None else _archived(source, head, name, error)


def _name_of(source: Source, error: AccessDeniedError | ObjectArchivedError) -> str | None:
    """The object that a store's error is about, if it is in the folder."""
    _, found, name = str(error.url).rpartition(f"/{folder(source.key)}")
    return name if found else None


def _whose(source: Source, head: Head) -> str:
    return f"version {head.sequence} ({head.commit}) of {source.url}"


def _missing(source: Source, head: Head, name: str) -> CorruptDatabaseError:
    return CorruptDatabaseError(
        f"{key_of(source.url, name)} is missing, so that {_whose(source, head)} cannot be read. Nothing was changed. "
        "temaki removes no object that a version needs: a lifecycle rule has, or somebody else. If the bucket keeps "
        f"versions, remove the object's delete marker; or restore an earlier version with `temaki restore "
        f"{source.url}`. Exempt {folder(source.url)} from lifecycle rules that end current objects.",
        url=source.url,
        reason="the object is missing",
        commit=head.commit,
        sequence=head.sequence,
        object=name,
    )


def _archived(source: Source, head: Head, name: str, error: ObjectArchivedError) -> ObjectArchivedError:
    return ObjectArchivedError(
        f"{key_of(source.url, name)} is archived, so that {_whose(source, head)} cannot be read "
        f"({error.status} {error.code}). Nothing was changed. Restore the object from the archive (aws s3api "
        "restore-object), and then copy it onto itself in the storage class STANDARD. Exempt "
        f"{folder(source.url)} from the lifecycle rule that archived it: bases grow old, and are still needed.",
        **{**error.facts, "commit": head.commit, "sequence": head.sequence, "object": name},
    )


def _denied(source: Source, head: Head | None, name: str, error: AccessDeniedError) -> AccessDeniedError:
    whose = f"the first version of {source.url} in pages" if head is None else f"{_whose(source, head)} or the next one"
    advice = (
        f"Grant s3:GetObject, s3:PutObject and s3:DeleteObject for {folder(source.key)}* too, and s3:ListBucket for "
        f"the bucket. `temaki doctor {source.url}` checks all of them."
    )
    return AccessDeniedError(
        f"{key_of(source.url, name)} cannot be accessed ({error.status} {error.code}). It is an object of {whose}. The "
        "credentials lack a permission for the objects in this folder; or the object is missing, and the credentials "
        f"may not list the bucket. Nothing was changed. {advice}",
        **{
            **error.facts,
            "advice": advice,
            "commit": None if head is None else head.commit,
            "sequence": None if head is None else head.sequence,
            "object": name,
        },
    )

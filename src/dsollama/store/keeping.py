"""A blob that no name keeps yet, held while others may delete it.

An Ollama that starts deletes blobs that no manifest names, and `ollama rm` those of its model. It
reads the manifests first and deletes then, knows of no lock, and so may delete what has just got a
name. Until that is over, the blob has a second name outside `blobs/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dsollama.store.files import make_folder, sync_folder
from dsollama.store.store import Store


@contextmanager
def kept(store: Store, digest: str) -> Iterator[Callable[[], None]]:
    """Keep a blob inside the block; the caller is `changing` the store.

    A file system without hard links cannot do it: there, what is deleted is gone.

    Yields:
        What puts the blob back if it has been deleted; it is gone where that does nothing.

    Raises:
        StoreError: there is no place for the second name.
    """
    blob, second = store.blob_path(digest), store.temporary()
    make_folder(second.parent)
    with suppress(OSError):
        os.utime(blob)  # a starting Ollama leaves what is younger than an hour
        os.link(blob, second, follow_symlinks=False)

    def put_back() -> None:
        with suppress(OSError):
            os.link(second, blob, follow_symlinks=False)
            sync_folder(blob.parent)

    try:
        yield put_back
    finally:
        with suppress(OSError):
            second.unlink(missing_ok=True)

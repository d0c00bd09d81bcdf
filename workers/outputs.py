"""What a stage made, brought to the artifact store. A segment that is there survives whatever happens here."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.artifacts import ArtifactStore, StorageFailure, file_sha256

log = logging.getLogger(__name__)

_SEGMENT = re.compile(r"[0-9]+-([0-9a-f]{16})\.jsonl\.zst")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries when the store fails; after the last the attempt fails and is tried again later."""


class SegmentUpload:
    """Uploads an attempt's segments as they are sealed, each once."""

    def __init__(self, store: ArtifactStore, prefix: str, folder: Path) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._folder = folder
        self._uploaded: set[str] = set()

    def upload(self, name: str) -> bool:
        """Upload the segment with this file name; returns whether it is in the store.

        A name or bytes that are no segment's are left out with a warning.

        Raises:
            ArtifactError: the store failed again and again.
        """
        match = _SEGMENT.fullmatch(name)
        path = self._folder / name
        if name in self._uploaded:
            return True
        if match is None or not path.is_file() or not file_sha256(path).startswith(match[1]):
            log.warning("segment %s is set aside: its bytes do not match its digest", name)
            return False
        persistently(lambda: self._store.put_file(f"{self._prefix}/{name}", path))
        self._uploaded.add(name)
        return True

    def salvage(self) -> None:
        """Upload what was sealed and never announced: the stage was killed in between."""
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                if _SEGMENT.fullmatch(path.name):
                    self.upload(path.name)


def upload_folder(store: ArtifactStore, prefix: str, folder: Path) -> None:
    """Upload every file of a finished stage's output."""
    persistently(lambda: store.put_folder(prefix, folder))


def persistently(put: Callable[[], object]) -> None:
    """Do it, again after a pause when the store fails: artifacts are the same however often they are put."""
    for pause in PAUSES:
        try:
            put()
            return
        except StorageFailure as error:
            log.warning("artifact store: %s; trying again in %g s", error, pause)
            time.sleep(pause)
    put()

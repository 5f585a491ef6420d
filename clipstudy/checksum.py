"""Checksums of files, as their publishers state them: ``sha256:…``, or ``git:…``, the id of a Git blob."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_FORM = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")


def well_formed(text: str) -> bool:
    """Is ``text`` a checksum that :func:`like` can be compared with?"""
    return _FORM.fullmatch(text) is not None


def like(checksum: str, path: Path) -> str:
    """The checksum of the file ``path``, of the same kind as ``checksum``.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        if checksum.startswith("git:"):
            # Git hashes a header of type and size before the content (Pro Git, 10.2).
            header = f"blob {path.stat().st_size}\0".encode()
            return f"git:{hashlib.file_digest(stream, lambda: hashlib.sha1(header)).hexdigest()}"
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"

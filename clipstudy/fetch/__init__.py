"""Every weight and data set of a study, downloaded once, so that machines without network can run it.

What is fetched is what the backbones and readers declare that they read (``backbones.wanted``, ``data.wanted``). The
Hub's files go into the Hub's own cache (HF_HOME), released files to their ``path``; each is compared with the checksum
that its publisher states. The manifest, a JSON file a study under the cache folder, says what came: by it
:func:`verify` tells, with no network, whether all is here and whole.
"""

from __future__ import annotations

from clipstudy.fetch.download import fetch_all
from clipstudy.fetch.items import Failure, Item, Survey, told, wanted
from clipstudy.fetch.manifest import manifest_path, record, verify
from clipstudy.fetch.survey import survey_all

__all__ = [
    "Failure",
    "Item",
    "Survey",
    "fetch_all",
    "manifest_path",
    "record",
    "survey_all",
    "told",
    "verify",
    "wanted",
]

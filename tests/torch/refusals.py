"""What every message about a model that cannot be loaded has: where, why, and what to do."""

from __future__ import annotations

import re

import pytest

from clipstudy import backbones
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec

#: A sentence, a variable to set, or a command.
ENDS = re.compile(r"(\.|: [A-Z_]+=\S+|: clipstudy [\w -]+)\Z")


def refused(spec: ModelSpec, *words: str) -> None:
    """``spec`` is not loaded; the message begins with its table, holds ``words``, and ends with what to do."""
    with pytest.raises(ModelError) as caught:
        backbones.load(spec, "cpu")
    message = caught.value.message
    assert message.startswith(f"[models.{spec.name}]") and ENDS.search(message), message
    for word in words:
        assert word in message, message

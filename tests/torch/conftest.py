"""What several tests of models need."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not depend on those before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own models may be loaded: their package is one of those that this machine trusts."""
    from tests.torch.image_checkpoints import OWN  # loads torch and its libraries

    monkeypatch.setenv("CLIPSTUDY_TORCH_PACKAGES", f"somewhere.else, {OWN}")

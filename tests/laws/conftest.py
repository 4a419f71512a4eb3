"""The laws are tested with the library's warnings as errors: no point is degenerate unexpectedly."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def always_strict(strict):
    """Use ``strict`` in every test of this folder."""

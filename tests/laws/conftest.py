"""What all laws share: warnings of the library are errors, unless a test expects them."""

from __future__ import annotations

import warnings

import pytest

import conediff as cd


@pytest.fixture(autouse=True)
def strict():
    """Degenerate points are to be found where they are expected, and nowhere else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        yield

"""What all suites share: every test is marked with its suite, and the fixture ``strict``."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import conediff as cd

TESTS = Path(__file__).parent
SUITES = ("unit", "laws", "fuzz", "adapters", "peers", "product")


def suite(path):
    """Return the suite of a test file: its folder below tests. Doctests of the package are unit tests."""
    if path.is_relative_to(TESTS):
        folder = path.relative_to(TESTS).parts[0]
        return folder if folder in SUITES else None
    return "unit"


def pytest_ignore_collect(collection_path, config):
    """Where -m names one suite, import no other: the adapters' frameworks take ten seconds."""
    wanted = config.option.markexpr
    if wanted in SUITES and collection_path.is_file() and suite(collection_path) != wanted:
        return True
    return None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by -m
def pytest_collection_modifyitems(items):
    """Mark every test with its suite. Slow tests belong to the suite ``slow`` alone."""
    for item in items:
        name = suite(item.path)
        if name and not item.get_closest_marker("slow"):
            item.add_marker(name)


@pytest.fixture
def strict():
    """The library's warnings are errors, unless a test expects them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        yield

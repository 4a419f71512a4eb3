"""What all suites share: every test is marked with its suite, and the fixture ``strict``."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path

import pytest

import conediff as cd

TESTS = Path(__file__).parent
# Not tests. Collected for doctests, they would skip themselves half imported, and their importers would fail.
collect_ignore_glob = ["adapters/on_*.py"]
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


def missing_packages(reports):
    """Return how many tests each package that could not be imported has skipped."""
    reasons = [str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)]
    found = (re.search(r"could not import '(\w+)", reason) for reason in reasons)
    return Counter(match[1] for match in found if match)


def pytest_terminal_summary(terminalreporter):
    """Say which packages are missing, how much was skipped for it, and how to run everything."""
    skipped = missing_packages(terminalreporter.stats.get("skipped", ()))
    for package, count in skipped.most_common():
        terminalreporter.write_line(
            f"{package} is not installed: {count} tests or files of tests were skipped"
        )
    if skipped:
        terminalreporter.write_line(
            "To run them all, install what CONTRIBUTING.md lists under 'Set up', and run this command again."
        )


@pytest.fixture
def strict():
    """The library's warnings are errors, unless a test expects them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        yield

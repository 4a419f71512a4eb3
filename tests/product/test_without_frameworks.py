"""In an environment without frameworks the commands of the README work, and say what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Python imports this module at its start. The import system then finds none of these packages.
HIDE = """\
from importlib.machinery import PathFinder

found = PathFinder.find_spec.__func__
hidden = {"torch", "keras", "tensorflow", "jax", "mlx"}


def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else found(cls, name, path, target)


PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a Python module in a process in which no framework can be imported."""
    (tmp_path / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    paths = [tmp_path, ROOT, ROOT / "adapters"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def run(*arguments):
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def test_info_says_what_to_install(run):
    done = run("conediff", "info")
    assert done.returncode == 0
    assert 'PyTorch: not installed; pip install ".[torch]" in a checkout' in done.stdout
    assert 'Keras: not installed; pip install ".[tensorflow]" in a checkout' in done.stdout


def test_tests_are_collected_and_what_is_skipped_is_said(run):
    # Doctests of helper modules are collected too: without TensorFlow, one of them was left half imported.
    done = run("pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/adapters")
    last = done.stdout[-2000:]
    assert done.returncode in (0, 5), last  # 5: nothing is left to collect, and nothing went wrong
    assert "torch is not installed: " in last and "tensorflow is not installed: " in last
    assert "CONTRIBUTING.md" in last

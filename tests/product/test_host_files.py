"""Files for a public host: they parse, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(p for p in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def steps(path):
    """Yield every step of every job of a workflow."""
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_extras_modules_and_pythons_that_exist(path):
    for step in steps(path):
        assert ("uses" in step) != ("run" in step)
        for extras in re.findall(r"\.\[([\w,-]+)\]", step.get("run", "")):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    text = path.read_text(encoding="utf-8")
    supported = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    assert set(re.findall(r'"(3\.\d+)"', text)) <= supported
    assert "index-url" not in text


def test_tests_run_with_every_python_on_three_systems():
    (path,) = (path for path in WORKFLOWS if path.stem == "tests")
    matrix = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["numpy"]["strategy"]["matrix"]
    supported = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert matrix["python"] == supported
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_something(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    assert any(part.get("validations", {}).get("required") for part in form["body"])

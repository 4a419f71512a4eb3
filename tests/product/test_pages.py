"""What the README and the pages show runs as it stands, and links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import numpy as np
import pytest

import conediff

ROOT = Path(__file__).parents[2]
BUILT = {"_build", "auto_gallery"}
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if not BUILT & set(p.relative_to(ROOT).parts))
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def plain(printed):
    """Arrays and lists, printed with commas and padding or without, look the same."""
    return re.sub(r" +", " ", printed.replace(",", "")).replace("[ ", "[")


def run(block, scope, capsys):
    """Run a block; what its comments say is printed must be printed."""
    for framework in ("torch", "tensorflow", "keras", "jax", "equinox", "mlx"):
        if re.search(rf"\b{framework}\b", block):
            pytest.importorskip("mlx.core" if framework == "mlx" else framework, exc_type=ImportError)
    exec(compile(block, "page", "exec"), scope)
    printed = capsys.readouterr().out
    for comment in re.findall(r"^\s*print\(.*# (.*)$", block, flags=re.MULTILINE):
        for said in literals(comment):
            assert plain(said) in plain(printed), (said, printed)
    return printed


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Blocks may save files."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run_and_print_what_they_say(page, capsys, elsewhere):
    scope = {}
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        run(block, scope, capsys)


@pytest.mark.parametrize("heading", ["NumPy", "PyTorch", "Keras", "JAX"])
def test_each_block_of_the_readme_stands_alone(heading, capsys, elsewhere):
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", README, flags=re.DOTALL | re.MULTILINE)
    (block,) = blocks(section, "python")
    assert len(block.splitlines()) <= 24
    numbers = [
        float(n) for n in re.findall(r"(?:error|profit|loss|before,) (-?\d+\.\d+)", run(block, {}, capsys))
    ]
    # Every one of them follows a gradient: errors and losses fall, profits rise.
    first, last = numbers[0], numbers[-1]
    assert last > 1.2 * first if heading == "PyTorch" else last < 0.9 * first


@pytest.mark.parametrize("heading", ["cvxpylayers", "diffcp"])
def test_migrating_changes_nothing_but_the_import(heading, capsys, elsewhere):
    (section,) = re.findall(rf"^## Coming from {heading}\n(.*?)^## ", README, flags=re.DOTALL | re.MULTILINE)
    (difference,) = blocks(section, "diff")
    lines = difference.splitlines()
    before, after = ("\n".join(line[1:] for line in lines if line[:1] != mark) for mark in "+-")
    assert sum(line[:1] in ("+", "-") for line in lines) == 2
    found = numbers(run(after, {}, capsys))
    assert np.abs(found).max() > 0.1
    pytest.importorskip(heading)
    np.testing.assert_allclose(numbers(run(before, {}, capsys)), found, atol=1e-3)


def numbers(printed):
    return [float(n) for n in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", printed)]


def literals(comment):
    """What a comment says is printed: arrays, shapes, decimal numbers, truth values, or just one word."""
    if re.fullmatch(r"\w+", comment):
        return [comment]
    return re.findall(r"\[[^\]]*\]|\([\d, ]*\)|\b\d+\.\d+\b|\bTrue\b|\bFalse\b", comment)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_goes_unrun(page):
    """Indented code is not seen by the test above. Blocks of py, which need a cluster, compile."""
    text = re.sub(r"^(```|:::).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^ {4,}(import|from|print|[a-z_]+ =) ", text, flags=re.MULTILINE)
    languages = set(re.findall(r"^```(\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert languages <= {"python", "py", "sh", "text", "bibtex", "{eval-rst}"}
    for block in blocks(page.read_text(encoding="utf-8"), "py"):
        compile(block, page.name, "exec")


def test_two_commands_are_marked():
    for mark, word in (("run", "python -m conediff demo"), ("test", "pytest")):
        found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README)
        assert found is not None
        assert word in found[1] and "\n" not in found[1]


def anchors(page):
    """What headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_point_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path or "auto_gallery/" in path:  # which is made as the site is built
            continue
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_contributing_has_a_row_for_every_package():
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("conediff/**/__init__.py")}
    rows = re.findall(r"^\| `(conediff/[\w/]+)` \|", CONTRIBUTING, flags=re.MULTILINE)
    assert sorted(rows) == sorted(packages - {"conediff"})


def test_paths_that_pages_name_exist():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES):
        for path in re.findall(r"\b(?:tests|conediff|adapters)/[\w/]+\.py", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), (page.name, path)


def test_contributing_has_a_row_for_every_marker():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    markers = [marker.partition(":")[0] for marker in settings["ini_options"]["markers"]]
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ (?:s|min) \|$", CONTRIBUTING, flags=re.MULTILINE)
    assert rows == markers


def test_links_into_the_gallery_are_to_scripts_that_are_there():
    for page in PAGES:
        for target in re.findall(r"auto_gallery/([\w/]+)\.rst", page.read_text(encoding="utf-8")):
            source = ROOT / "docs" / "gallery" / target
            assert source.name == "index" or source.with_suffix(".py").exists(), (page, target)


def test_pictures_are_small_and_their_scripts_draw_them(tmp_path):
    pytest.importorskip("matplotlib")
    figures = ROOT / "docs" / "figures"
    before, after = runpy.run_path(str(figures / "readme.py"))["draw"](tmp_path / "readme.png")
    assert after < before / 100
    results = json.loads((figures / "data" / "speed.json").read_text(encoding="utf-8"))
    drawn = runpy.run_path(str(figures / "speed.py"))["draw"](results, tmp_path / "speed.png")
    assert len(drawn) >= 5 and all("cvxpylayers" in peers for peers in drawn.values())
    for name in ("readme.png", "speed.png"):
        assert (tmp_path / name).stat().st_size > 10_000
        assert f"docs/_static/{name}" in README
        assert 10_000 < (ROOT / "docs" / "_static" / name).stat().st_size < 150_000


def test_what_is_to_be_cited_is_this_version():
    said = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {conediff.__version__}\n" in said


def test_what_the_test_run_skips_is_counted_by_package():
    conftest = runpy.run_path(str(ROOT / "tests" / "conftest.py"))

    class Report:
        def __init__(self, reason):
            self.longrepr = ("file.py", 1, reason)

    reasons = [
        "Skipped: could not import 'torch': No module named 'torch'",
        "Skipped: could not import 'torch.func': No module named 'torch'",
        "Skipped: could not import 'keras': No module named 'keras'",
        "Skipped: needs fork",
    ]
    assert conftest["missing_packages"]([Report(reason) for reason in reasons]) == {"torch": 2, "keras": 1}


def test_extras_that_are_named_exist_and_come_from_a_checkout():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES, *ROOT.glob("conediff/**/*.py")):
        text = page.read_text(encoding="utf-8")
        assert "conediff[" not in text, page  # until there is a release
        for extras in re.findall(r'"\.\[([\w,-]+)\]"', text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), (page, extras)


@pytest.mark.parametrize(
    "page", ["README", "docs/index", *(f"docs/quickstart/{n}" for n in ("numpy", "torch", "keras"))]
)
def test_where_a_user_begins_it_says_cpu(page):
    text = " ".join((ROOT / f"{page}.md").read_text(encoding="utf-8").split())
    assert "It solves on the CPU." in text

"""What the README and the pages show runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = {"_build", "auto_gallery"}
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if not BUILT & set(p.relative_to(ROOT).parts))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def plain(printed):
    """Arrays and lists, printed with commas and padding or without, look the same."""
    return re.sub(r" +", " ", printed.replace(",", "")).replace("[ ", "[")


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run_and_print_what_they_say(page, capsys):
    scope = {}
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for framework in ("torch", "tensorflow", "keras"):
            if re.search(rf"\b{framework}\b", block):
                pytest.importorskip(framework)
        exec(compile(block, page.name, "exec"), scope)
        printed = capsys.readouterr().out
        for comment in re.findall(r"^\s*print\(.*# (.*)$", block, flags=re.MULTILINE):
            for said in literals(comment):
                assert plain(said) in plain(printed), (said, printed)


def literals(comment):
    """What a comment says is printed: arrays, shapes, decimal numbers, truth values, or just one word."""
    if re.fullmatch(r"\w+", comment):
        return [comment]
    return re.findall(r"\[[^\]]*\]|\([\d, ]*\)|\b\d+\.\d+\b|\bTrue\b|\bFalse\b", comment)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_code_goes_unrun(page):
    """Indented code is not seen by the test above; blocks of Python are python, not py or pycon."""
    text = re.sub(r"^(```|:::).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^ {4,}(import|from|print|[a-z_]+ =) ", text, flags=re.MULTILINE)
    languages = set(re.findall(r"^```(\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert languages <= {"python", "sh", "text", "{eval-rst}"}


def test_two_commands_are_marked():
    for mark, word in (("run", "python -m conediff demo"), ("test", "pytest")):
        found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README)
        assert found is not None
        assert word in found[1] and "\n" not in found[1]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_point_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and "auto_gallery/" not in target:
            assert (page.parent / target).exists(), target

"""What the README and the pages show runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_python_blocks_run_and_print_what_they_say(page, capsys):
    scope = {}
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for framework in ("torch", "tensorflow", "keras"):
            if re.search(rf"\b{framework}\b", block):
                pytest.importorskip(framework)
        exec(compile(block, page.name, "exec"), scope)
        printed = capsys.readouterr().out
        for said in re.findall(r"print\(.*#.*?(\[[^\]]*\])$", block, flags=re.MULTILINE):
            assert said in re.sub(r" +", " ", printed.replace(",", "").replace("[ ", "[")), (said, printed)


def test_two_commands_are_marked():
    for mark, word in (("run", "python -m conediff demo"), ("test", "pytest")):
        found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README)
        assert found is not None
        assert word in found[1] and "\n" not in found[1]


def test_links_point_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target

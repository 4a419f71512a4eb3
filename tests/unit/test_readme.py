"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_python_blocks_run(capsys):
    scope = {}
    for block in blocks(README, "python"):
        if "torch" in block:
            pytest.importorskip("torch")
        if "keras" in block or "tensorflow" in block:
            pytest.importorskip("tensorflow")
        exec(compile(block, "README.md", "exec"), scope)
    assert "[1.4 1.7]" in capsys.readouterr().out


def test_two_commands_are_marked():
    for mark, word in (("run", "python -m conediff demo"), ("test", "pytest")):
        found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README)
        assert found is not None
        assert word in found[1] and "\n" not in found[1]


def test_links_point_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target

"""Expressions as users write them, for messages."""

from __future__ import annotations

import re
from typing import Any

# An argument: anything with balanced parentheses up to three deep.
_ARGUMENT = r"((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*?)"
# What cvxpy prints, and what was written.
_SPELLINGS = (
    (re.compile(rf"\bPromote\({_ARGUMENT}, \([\d, ]*\)\)"), r"\1"),
    (re.compile(rf"\bquad_over_lin\({_ARGUMENT}, 1\.0, None, False\)"), r"sum_squares(\1)"),
    (re.compile(rf"\bSum\({_ARGUMENT}, None, False\)"), r"sum(\1)"),
    (re.compile(rf"\bPnorm(?:Approx)?\({_ARGUMENT}, 2\)"), r"norm(\1)"),
    (re.compile(r" \+ -(?=\S)"), " - "),
    (re.compile(rf"\bPower(?:Approx)?\({_ARGUMENT}, 2(?:\.0)?\)"), r"square(\1)"),
)


def spell(item: Any) -> str:
    """Return cvxpy's text of an expression, constraint or objective, with the names that users write."""
    text = str(item)
    for printed, written in _SPELLINGS:
        while (changed := printed.sub(written, text)) != text:
            text = changed
    return text

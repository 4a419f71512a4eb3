"""How a solve went, in one line: for ``repr`` and for ``verbose=True``."""

from __future__ import annotations

from collections import Counter

from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


def summarise(result: SolveResult) -> str:
    """Return statuses and the largest residual: "3 solved, 1 infeasible; residual 2.1e-12 at most"."""
    if result.count == 1:
        text = str(result.status[0])
    else:
        counts = Counter(result.status.tolist())
        text = ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no elements"
    solved = result.residual[result.has_solution]
    if solved.size:
        text += f"; residual {solved.max():.1e}{' at most' if result.count > 1 else ''}"
    return text


def print_verbose(result: SolveResult, settings: Settings) -> None:
    """With ``verbose=True`` print conediff's own line, the last one, below what SCS and Clarabel printed.

    Status, iterations of the solvers, steps of Newton's method and the relative KKT residual.
    """
    if not settings.scs.get("verbose"):
        return
    steps = [
        f"{values.sum()} {what}" + (f", {values.max()} at most" if result.count > 1 else "")
        for values, what in (
            (result.iterations, "iterations of SCS or Clarabel"),
            (result.refinements, "Newton steps"),
        )
    ]
    print("; ".join(["conediff: " + summarise(result).partition(";")[0], *steps, _residual(result)]))


def _residual(result: SolveResult) -> str:
    solved = result.residual[result.has_solution]
    return f"relative KKT residual {solved.max():.1e}" if solved.size else "no residual, because no solution"

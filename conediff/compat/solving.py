"""Solves lists of cone programs, equal shapes and cones together, and reports failures as diffcp does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from conediff.api.solution import Solution
from conediff.api.solve import solve_unchecked
from conediff.compat.constants import WITH_SOLUTION
from conediff.compat.reports import solver_message
from conediff.errors import SolverError
from conediff.program import ConeProgram


def solve_programs(
    programs: Sequence[ConeProgram], starts: Any, settings: Mapping[str, Any]
) -> tuple[list[tuple[list[int], Any]], list[Solution]]:
    """Solve programs; those of one shape and the same cones are one batch.

    Parameters
    ----------
    programs : sequence of ConeProgram
    starts : sequence of (x, y, s) or None, or None
        Where SCS starts, one per program.
    settings : mapping
        Arguments of `solve_batch`.

    Returns
    -------
    batches : list of (index, Solutions)
        ``index`` has the positions of a batch's programs in ``programs``.
    solutions : list of Solution
        In the order of ``programs``; also of programs that have no solution.
    """
    places: dict[Any, list[int]] = {}
    for k, program in enumerate(programs):
        places.setdefault((program.m, program.n, program.structure.cone), []).append(k)
    batches: list[Any] = []
    for (m, n, _), index in places.items():
        cold = (np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan))
        rows = [cold if starts is None or starts[k] is None else starts[k] for k in index]
        start, members = tuple(map(np.stack, transpose(rows))), [programs[k] for k in index]
        batches.append((index, solve_unchecked(members, warm_start=start, on_failure="nan", **settings)))
    ordered = {k: one for index, found in batches for k, one in zip(index, found, strict=True)}
    return batches, [ordered[k] for k in range(len(programs))]


def raise_failures(solutions: Sequence[Solution], solver: str, where: str = "") -> None:
    """Raise SolverError, naming all failed programs, if any has failed.

    Parameters
    ----------
    solutions : sequence of Solution
    solver : {"SCS", "ECOS", "Clarabel"}
        The solver that diffcp would name.
    where : str
        Begins the message.
    """
    failed = {k: one.status for k, one in enumerate(solutions) if one.status not in WITH_SOLUTION}
    if failed:
        listed = ", ".join(f"{k} ({status})" for k, status in failed.items())
        first = next(iter(failed.values()))
        what = f"no solution of program {listed}" if len(solutions) > 1 else f"the program is {first}"
        message = (
            f"{where}{solver_message(first, solver)}: {what}; certificates are in .solutions of this error"
        )
        raise SolverError(message, tuple((k,) for k in failed), tuple(failed.values()), solutions)


def transpose(rows: Iterable[Iterable[Any]]) -> tuple[list[Any], ...]:
    """Turn one tuple per program into one list per member of the tuples."""
    return tuple(map(list, zip(*rows, strict=True)))

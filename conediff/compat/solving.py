"""Solves lists of cone programs, equal shapes and cones together, and reports failures as diffcp does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from conediff.api.solution import Solution
from conediff.api.solve import solve_unchecked
from conediff.compat.constants import STATUS_VALUES, WITH_SOLUTION
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


def raise_failures(solutions: Sequence[Solution], where: str = "") -> None:
    """Raise SolverError, naming all failed programs, if any has failed; ``where`` begins the message."""
    failed = {k: one.status for k, one in enumerate(solutions) if one.status not in WITH_SOLUTION}
    if failed:
        listed = ", ".join(f"{k} ({status})" for k, status in failed.items())
        what = f"no solution of program {listed}" if len(solutions) > 1 else f"the program is {failed[0]}"
        message = f"{where}{what}; certificates are in .solutions of this error"
        raise SolverError(message, tuple((k,) for k in failed), tuple(failed.values()), solutions)


def describe_solve(program: ConeProgram, found: Solution) -> dict[str, Any]:
    """Return SCS's dictionary of information on a solve; times in milliseconds."""
    half, status, info = found.x @ (program.P @ found.x) / 2, found.status, found.info
    certain = {"infeasible": np.inf, "unbounded": -np.inf}.get(status, 0.0)
    return {
        "status": status,
        "status_val": STATUS_VALUES[status],
        "iter": info["iterations"],
        "pobj": certain or half + program.c @ found.x,
        "dobj": certain or -half - program.b @ found.y,
        "setup_time": 1e3 * info["setup_time"],
        "solve_time": 1e3 * (info["solve_time"] + info["refine_time"]),
    }


def transpose(rows: Iterable[Iterable[Any]]) -> tuple[list[Any], ...]:
    """Turn one tuple per program into one list per member of the tuples."""
    return tuple(map(list, zip(*rows, strict=True)))

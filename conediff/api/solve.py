"""Solve cone programs: one, or many of one structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from conediff.api.failures import handle_failures
from conediff.api.feasibility import find_infeasible
from conediff.api.solution import Solution, Solutions, SolvedBatch
from conediff.api.summary import print_verbose
from conediff.errors import ParameterError, ProblemError
from conediff.kkt.ldl import is_psd
from conediff.program import Array, ConeData, ConeProgram, Pattern, Point, Structure, union
from conediff.program.cone_program import numbers
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.settings import Settings


def solve(program: ConeProgram, warm_start: Any = None, **settings: Any) -> Solution:
    """Solve a cone program.

    Parameters
    ----------
    program : ConeProgram
    warm_start : Solution or tuple of arrays (x, y, s), optional
        Where to begin; where Newton's method converges from there, SCS is not called.
    **settings
        ``tol`` (1e-10), ``refine`` (True), ``solver`` ("scs" or "clarabel", which then comes first),
        ``time_limit_secs`` (for the whole call), ``method``, ``threads``, ``executor``, ``on_failure``
        ("raise" or "nan"), all settings of SCS (``eps``, ``eps_abs``, ``eps_rel``, ``max_iters``, ...) and
        tolerances of Clarabel (``tol_gap_abs``, ``tol_gap_rel``, ``tol_feas``, ...).

    Returns
    -------
    Solution

    Raises
    ------
    SolverError
        If the program is infeasible or unbounded, or no accurate solution was found; the certificate is in
        its ``solutions``.
    ProblemError
        If P is not positive semidefinite.
    ExecutorError
        If the executor takes no work.
    TypeError
        If ``program`` is no `ConeProgram`, or a setting is unknown.
    ValueError
        If a warm start does not fit the program, or a setting has a value that it cannot have.

    Warns
    -----
    AccuracyWarning
        If the solution is less accurate than ``tol``.

    Examples
    --------
    >>> import numpy as np, conediff as cd
    >>> program = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [2.0], {"l": 1})
    >>> cd.solve(program).x.round(9)
    array([1.])
    """
    if not isinstance(program, ConeProgram):
        raise TypeError(f"solve takes a ConeProgram, got {type(program).__name__}; for cvxpy see CvxpyLayer")
    solver = BatchSolver(program.structure)
    start = None if warm_start is None else _start(warm_start, program.structure, 1)
    _check_convex(program.structure, program.data)
    return _solved(solver, program.data, _settings(settings), start)[0]


def solve_batch(
    programs: ConeProgram | Sequence[ConeProgram],
    *,
    P: ArrayLike | None = None,
    A: ArrayLike | None = None,
    b: ArrayLike | None = None,
    c: ArrayLike | None = None,
    warm_start: Any = None,
    **settings: Any,
) -> Solutions:
    """Solve many cone programs of one structure at once.

    Parameters
    ----------
    programs : sequence of ConeProgram, or ConeProgram
        Programs of the same shape and cones; their sparsity may differ, and the union is used. Or one
        program, whose data the stacked arrays replace.
    P, A : arrays, shape (B, nnz), optional
        Values on the program's sparsity, in CSC order (of P both triangles).
    b, c : arrays, shape (B, m), (B, n), optional
    warm_start : Solutions or tuple of arrays (x, y, s), optional
        With a leading axis of B.
    **settings
        As for `solve`; ``on_failure="nan"`` keeps the good elements of a batch in which some fail, and the
        workers of ``executor``, any ``concurrent.futures.Executor``, solve the batch in parts, and
        differentiate it.

    Returns
    -------
    Solutions

    Raises
    ------
    SolverError
        If an element fails, unless ``on_failure`` says otherwise.
    ProblemError
        If P of an element is not positive semidefinite.
    ParameterError
        If an entry of the stacked arrays is NaN or infinite.
    ExecutorError
        If the executor takes no work.
    TypeError
        If an element is no `ConeProgram`, an array is not of numbers, or a setting is unknown.
    ValueError
        If the programs, or the arrays, do not fit together, P is not symmetric, or a setting has a value that
        it cannot have.

    Warns
    -----
    AccuracyWarning
        If a solution is less accurate than ``tol``.
    ConediffWarning
        If workers of the executor were lost, and this process solved their parts.
    """
    if isinstance(programs, ConeProgram):
        structure = programs.structure
        data = _stacked(programs, {"P": P, "A": A, "b": b, "c": c})
    else:
        if any(part is not None for part in (P, A, b, c)):
            raise ValueError("stacked P, A, b, c go with a single program, not with a sequence of programs")
        structure, data = _union(list(programs))
    _check_convex(structure, data)
    start = None if warm_start is None else _start(warm_start, structure, data.count)
    return _solved(BatchSolver(structure), data, _settings(settings), start)


def solve_unchecked(programs: Sequence[ConeProgram], warm_start: Any = None, **settings: Any) -> Solutions:
    """Solve as `solve_batch`, without a look at whether every P is positive semidefinite.

    For programs that are perturbed a little on purpose.
    """
    structure, data = _union(list(programs))
    start = None if warm_start is None else _start(warm_start, structure, data.count)
    return _solved(BatchSolver(structure), data, _settings(settings), start)


def _settings(given: dict[str, Any]) -> Settings:
    """Return the settings of a solve; ``validate`` is a layer's."""
    if "validate" in given:
        raise TypeError(
            "'validate' is an argument of layers: it skips the check of declared attributes of cvxpy's "
            "parameters, of which a cone program has none"
        )
    return Settings().updated(given)


def _check_convex(structure: Structure, data: ConeData) -> None:
    bad = np.flatnonzero(~is_psd(structure, data.P))
    if bad.size:
        where = f" of element {bad[0]}" if data.count > 1 else ""
        raise ProblemError(f"the program is not convex: P{where} is not positive semidefinite")


def _solved(solver: BatchSolver, data: ConeData, settings: Settings, start: Point | None) -> Solutions:
    result = solver.solve(data, settings, start)
    print_verbose(result, settings)
    solutions = Solutions(SolvedBatch(solver, data, result, settings))
    infeasible = partial(find_infeasible, solver, data, result, settings)
    handle_failures(result, settings, solutions, infeasible=infeasible)
    return solutions


def _start(warm_start: Any, structure: Structure, count: int) -> Point:
    """Read x, y and s from a solution or a tuple."""
    if isinstance(warm_start, (Solution, Solutions)):
        warm_start = (warm_start.x, warm_start.y, warm_start.s)
    if not isinstance(warm_start, (tuple, list)) or len(warm_start) != 3:
        raise ValueError(
            f"warm_start must be a solution, or a tuple of arrays (x, y, s), got {warm_start!r:.80}"
        )
    arrays = []
    sizes = (structure.n, structure.m, structure.m)
    for name, value, size in zip("xys", warm_start, sizes, strict=True):
        array = numbers(f"warm_start: {name}", value)
        if array.shape not in ((count, size),) + (((size,),) if count == 1 else ()):
            wanted = (count, size) if count > 1 else (size,)
            raise ValueError(f"warm_start: {name} must have shape {wanted}, but has {array.shape}")
        arrays.append(array.reshape(count, size))
    return Point(*arrays)


def _stacked(program: ConeProgram, given: dict[str, ArrayLike | None]) -> ConeData:
    """Replace a program's data by stacked arrays."""
    rows: dict[str, Array] = {}
    for name, value in given.items():
        own = getattr(program.data, name)
        if value is None:
            rows[name] = own
            continue
        rows[name] = numbers(name, value).copy()  # derivatives come later
        if rows[name].ndim != 2 or rows[name].shape[1] != own.shape[1]:
            raise ValueError(f"{name} must have shape (B, {own.shape[1]}), but has {rows[name].shape}")
        bad = np.argwhere(~np.isfinite(rows[name]))
        if len(bad):
            raise ParameterError(
                f"{name} is not finite: {name}[{bad[0][0]}, {bad[0][1]}] is {rows[name][tuple(bad[0])]}"
            )
    mirror = program.structure.P.mirror
    off = np.abs(rows["P"] - rows["P"][:, mirror]).max(initial=0.0)
    if off > 1e-12 * np.abs(rows["P"]).max(initial=0.0):
        raise ValueError("P must be symmetric: the values of its two triangles, in CSC order, must agree")
    counts = {name: len(array) for name, array in rows.items() if len(array) != 1}
    if len(set(counts.values())) > 1:
        raise ValueError(f"stacked arrays must have the same number of rows, got {counts}")
    return ConeData(**rows)


def _union(programs: list[ConeProgram]) -> tuple[Structure, ConeData]:
    """Bring programs of the same shape and cones onto one sparsity."""
    if not programs:
        raise ValueError(
            "a batch needs at least one program; for an empty one pass stacked arrays of no rows"
        )
    for k, program in enumerate(programs):
        if not isinstance(program, ConeProgram):
            raise TypeError(f"solve_batch takes ConePrograms, but element {k} is a {type(program).__name__}")
    first = programs[0]
    for k, program in enumerate(programs):
        if (program.m, program.n, program.structure.cone) != (first.m, first.n, first.structure.cone):
            raise ValueError(f"program {k} differs from program 0 in shape or cones: {program!r}, {first!r}")
    P, P_values = _common([program.P for program in programs])
    A, A_values = _common([program.A for program in programs])
    structure = Structure(P, A, first.structure.cone)
    b, c = np.stack([p.b for p in programs]), np.stack([p.c for p in programs])
    return structure, ConeData(P_values, A_values, b, c)


def _common(matrices: list[Any]) -> tuple[Pattern, Array]:
    """Return the union of the sparsities, and every matrix's values on it."""
    patterns = [Pattern.of(matrix) for matrix in matrices]
    pattern, at = union(patterns[0].shape, [(each.indices, each.columns) for each in patterns])
    values = np.zeros((len(matrices), pattern.nnz))
    for row, places, matrix in zip(values, at, matrices, strict=True):
        row[places] = matrix.data
    return pattern, values

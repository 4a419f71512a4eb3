r"""diffcp's interface on conediff: ``import conediff.compat as diffcp`` runs programs written for diffcp.

Names, order of arguments, return values, cone keys and modes are diffcp's. What differs is what was lacking:
a quadratic objective and power cones are allowed, and exact, in every mode; nothing is written into the
caller's arrays, so explicit zeros of A stay, and belong to its sparsity.

Data enter the optimality conditions through products alone: dA moves the solution as db = -dA x together with
dc = dA'y does, and dP as dc = dP x. So the derivative with respect to b and c gives all of it,

.. math:: g_A = y g_c^\top - g_b x^\top, \qquad g_P = \tfrac12 (g_c x^\top + x g_c^\top).

The lpgd modes take differences between perturbed programs (Lagrangian proximal gradient descent: Paulus,
Martius, Musil (2024), arXiv:2407.05920), which tend to this derivative as the perturbation tau tends to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from conediff.errors import SolverError
from conediff.program import ConeProgram
from conediff.solution import Solution, Solutions
from conediff.tangents import BatchDerivative
from conediff.solve import solve_batch
from conediff.solver import SCS_SETTINGS
from conediff.structure import Array

ZERO, POS, SOC, PSD, EXP = "z", "l", "q", "s", "ep"

# diffcp's mode and our method: LSQR defines the derivative, "auto" computes the same one faster.
_METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}
# Between which perturbations an lpgd mode takes the difference, in units of tau; 0 is the solution itself.
_SIDES = {"lpgd": (1, -1), "lpgd_right": (1, 0), "lpgd_left": (0, -1)}
_SOLVERS = ("SCS", "ECOS", "Clarabel", "CLARABEL", None)
# What SCS, ECOS and Clarabel call their tolerances; what changes how they get there, not where; what we pass on.
_TOLERANCES = set("eps eps_abs eps_rel abstol reltol feastol tol_gap_abs tol_gap_rel tol_feas".split())
_IGNORED = set("use_indirect gpu mkl abstol_inacc reltol_inacc feastol_inacc max_iter max_threads".split())
_PASSED = SCS_SETTINGS | {"tol", "refine", "threads"}
_STATUS_VALUE = {"solved": 1, "inaccurate": 2, "unbounded": -1, "infeasible": -2, "failed": -4}
_USABLE = ("solved", "inaccurate")


class _Point(NamedTuple):
    x: Array
    y: Array
    s: Array


def solve_and_derivative(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], warm_start: Any = None, mode: str = "lsqr",
    solve_method: str | None = "SCS", P: Any = None, **kwargs: Any,
) -> tuple[Array, Array, Array, Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve a cone program; return its solution, and the derivative of its solution map.

    Parameters
    ----------
    A : sparse matrix or array, shape (m, n)
    b, c : arrays, shape (m,), (n,)
    cone_dict : mapping
        Of f or z, l, q, s, ep, ed, p and SCS's other keys; rows and scaling as in `ConeProgram`.
    warm_start : tuple of arrays (x, y, s), optional
    mode : {"lsqr", "lsmr", "dense", "lpgd", "lpgd_left", "lpgd_right"}
        "lsqr" solves the reduced system directly, and runs LSQR where that is singular: the same answer.
    solve_method : {"SCS", "ECOS", "Clarabel"}, optional
        Accepted, and without effect: SCS solves, and Newton's method refines.
    P : sparse matrix or array, shape (n, n), optional
        Of the objective x'Px / 2 + c'x: its upper triangle, or the whole symmetric matrix.
    **kwargs
        ``derivative_kwargs``, a dict of ``tau`` (perturbation, required in the lpgd modes) and ``rho``
        (proximal weight, 0 by default); settings of SCS; tolerances and ``verbose`` of ECOS and Clarabel;
        ``tol``, ``refine`` and ``threads`` of `conediff.solve`. Tolerances above 1e-10 are met anyway.

    Returns
    -------
    x, y, s : arrays, shape (n,), (m,), (m,)
    derivative : callable
        ``derivative(dA, db, dc, dP=None)`` returns dx, dy, ds. If P is an upper triangle, that of dP is read,
        otherwise its symmetric part. Both callables also take ``tau`` and ``rho``.
    adjoint_derivative : callable
        ``adjoint_derivative(dx, dy, ds, return_dP=False)`` returns dA, db, dc, and dP if wanted; dA and dP
        are CSC matrices on the sparsity of A and P. If P is an upper triangle, entries of dP off the
        diagonal are those of both triangles together.

    Raises
    ------
    SolverError
        If the program has no solution; from the callables, if a perturbed one has none.
    TypeError
        If a keyword argument is unknown.
    ValueError
        If the mode, the solver or the data cannot be used.
    """
    r = solve_and_derivative_internal(A, b, c, cone_dict, solve_method, warm_start, mode, P=P, **kwargs)
    return r["x"], r["y"], r["s"], r["D"], r["DT"]


def solve_only(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], warm_start: Any = None,
    solve_method: str | None = "SCS", P: Any = None, **kwargs: Any,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Solve a cone program; return x, y and s as `solve_and_derivative` does."""
    r = solve_and_derivative_internal(A, b, c, cone_dict, solve_method, warm_start, P=P, **kwargs)
    return r["x"], r["y"], r["s"]


def solve_and_derivative_internal(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], solve_method: str | None = None,
    warm_start: Any = None, mode: str = "lsqr", raise_on_error: bool = True, P: Any = None, **kwargs: Any,
) -> dict[str, Any]:  # fmt: skip
    """Solve as `solve_and_derivative` does; return a dict of x, y, s, D, DT and, with SCS's keys and units, info.

    With ``raise_on_error=False`` a program without a solution has D and DT None; info tells its status.
    """
    kwargs["solve_method"] = solve_method
    batch = _Batch([A], [b], [c], [cone_dict], [warm_start], [P], mode, (-1, -1), kwargs)
    solution = batch.solutions[0]
    if raise_on_error:
        _check(batch.solutions)
    D, DT = (batch.derivative, batch.adjoint) if solution.status in _USABLE else (None, None)
    [x], [y], [s] = batch.own()
    return {"x": x, "y": y, "s": s, "info": _info(batch.programs[0], solution), "D": D, "DT": DT}


def solve_and_derivative_batch(
    As: Sequence[Any], bs: Sequence[Any], cs: Sequence[Any], cone_dicts: Sequence[Mapping[str, Any]],
    n_jobs_forward: int = -1, n_jobs_backward: int = -1, mode: str = "lsqr",
    warm_starts: Sequence[Any] | None = None, Ps: Sequence[Any] | None = None, **kwargs: Any,
) -> tuple[list[Array], list[Array], list[Array], Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve many cone programs, those of one shape and the same cones together.

    Arguments, results and errors are those of `solve_and_derivative`, as lists; elements of ``warm_starts`` and
    ``Ps`` may be None. ``n_jobs_forward`` threads solve and differentiate, ``n_jobs_backward`` solve perturbed
    programs in the lpgd modes; -1 means all processors. The callables are ``D_batch(dAs, dbs, dcs, dPs=None)``
    and ``DT_batch(dxs, dys, dss, return_dP=False)``; a SolverError names all that failed.
    """
    jobs = (n_jobs_forward, n_jobs_backward)
    batch = _Batch(As, bs, cs, cone_dicts, warm_starts, Ps, mode, jobs, kwargs)
    _check(batch.solutions)
    return *batch.own(), batch.derivatives, batch.adjoints


def solve_only_batch(
    As: Sequence[Any], bs: Sequence[Any], cs: Sequence[Any], cone_dicts: Sequence[Mapping[str, Any]],
    n_jobs_forward: int = -1, warm_starts: Sequence[Any] | None = None, Ps: Sequence[Any] | None = None,
    **kwargs: Any,
) -> tuple[list[Array], list[Array], list[Array]]:  # fmt: skip
    """Solve many cone programs; return xs, ys and ss as `solve_and_derivative_batch` does."""
    kwargs.update(n_jobs_forward=n_jobs_forward, warm_starts=warm_starts, Ps=Ps)
    return solve_and_derivative_batch(As, bs, cs, cone_dicts, **kwargs)[:3]


class _Batch:
    """Programs as diffcp's callers state them, their solutions, and diffcp's callables."""

    def __init__(
        self, As: Any, bs: Any, cs: Any, cones: Any, starts: Any, Ps: Any, mode: str, jobs: tuple[int, int],
        given: dict[str, Any],
    ) -> None:  # fmt: skip
        if mode not in (*_METHODS, *_SIDES):
            raise ValueError(f"unsupported mode {mode!r}; choose one of {', '.join((*_METHODS, *_SIDES))}")
        self.mode, self.parameters = mode, given.pop("derivative_kwargs", None) or {}
        forward, self.backward = (_settings(given, count) for count in jobs)
        self.Ps = [None if P is None else _csc(P) for P in ([None] * len(As) if Ps is None else Ps)]
        stated = zip(As, bs, cs, cones, self.Ps, strict=True)
        self.programs = [ConeProgram(A, b, c, _cones(cone), _whole(P, P)) for A, b, c, cone, P in stated]
        self.groups, self.solutions = _solve(self.programs, starts, forward)
        self.points = [_Point(r.x, r.y, r.s) for r in self.solutions]
        self.exact: list[BatchDerivative] = []

    def own(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return xs, ys and ss; copies, for they are the caller's own."""
        return [p.x.copy() for p in self.points], [p.y.copy() for p in self.points], [p.s.copy() for p in self.points]

    def derivative(self, dA: Any, db: Any, dc: Any, dP: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the derivative of a single program."""
        return tuple(part[0] for part in self.derivatives([dA], [db], [dc], [dP], **kwargs))

    def adjoint(self, dx: Any, dy: Any, ds: Any, return_dP: bool = False, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the adjoint of the derivative of a single program."""
        return tuple(part[0] for part in self.adjoints([dx], [dy], [ds], return_dP, **kwargs))

    def derivatives(self, dAs: Any, dbs: Any, dcs: Any, dPs: Any = None, **kwargs: Any) -> tuple[list[Any], ...]:
        """Apply the derivatives to lists of perturbations."""
        dPs = [None] * len(self.Ps) if dPs is None else dPs
        dPs = [0 * p.P if dP is None else _whole(_csc(dP), P) for p, P, dP in zip(self.programs, self.Ps, dPs)]
        tangents = list(zip(map(_csc, dAs), map(np.asarray, dbs), map(np.asarray, dcs), dPs, strict=True))
        if self.mode in _METHODS:
            pairs = zip(self.points, tangents, strict=True)
            rows = [(db - dA @ p.x, dc + dA.T @ p.y + dP @ p.x) for p, (dA, db, dc, dP) in pairs]
            return _columns(self._apply(lambda D, db, dc: D.jvp(db=db, dc=dc), rows))
        ends, width = self._ends(_moved, tangents, kwargs)
        return _columns([[(u - v) / width for u, v in zip(*pair, strict=True)] for pair in ends])

    def adjoints(self, dxs: Any, dys: Any, dss: Any, return_dP: bool = False, **kwargs: Any) -> tuple[list[Any], ...]:
        """Apply the adjoints to lists of cotangents."""
        if return_dP and None in self.Ps:
            raise ValueError("return_dP=True needs P, and there is a program without")
        cotangents = list(zip(map(np.asarray, dxs), map(np.asarray, dys), map(np.asarray, dss), strict=True))
        if self.mode in _METHODS:
            pulled = self._apply(lambda D, *g: D.vjp(*g)[2:], cotangents)
            parts = [(p.x, p.y, gb, gc) for p, (gb, gc) in zip(self.points, pulled, strict=True)]
        else:
            ends, width = self._ends(_tilted, cotangents, kwargs)
            # The difference of two products y x' is each factor's difference times the other's mean.
            parts = [((u.x + v.x) / 2, (u.y + v.y) / 2, (v.y - u.y) / width, (u.x - v.x) / width) for u, v in ends]
        data = zip(self.programs, self.Ps, parts, strict=True)
        return _columns([_gradient(program.A, P if return_dP else None, *part) for program, P, part in data])

    def _apply(self, function: Callable[..., Any], rows: list[Any]) -> list[Any]:
        """Apply the exact derivatives, those of a group at once; results in order."""
        self.exact = self.exact or [found.derivative(_METHODS[self.mode]) for _, found in self.groups]
        results: dict[int, Any] = {}
        for (index, _), D in zip(self.groups, self.exact, strict=True):
            parts = function(D, *map(np.stack, _columns([rows[k] for k in index])))
            results.update(zip(index, zip(*parts, strict=True), strict=True))
        return [results[k] for k in range(len(rows))]

    def _ends(self, change: Callable[..., Any], rows: list[Any], kwargs: Any) -> tuple[list[Any], float]:
        """Return between which points an lpgd mode takes the difference, and how far apart in tau they are."""
        tau, rho = _tau_rho(**{**self.parameters, **kwargs})
        ends = []
        for side in _SIDES[self.mode]:
            given = zip(self.programs, self.points, rows, strict=True)
            programs, backs = zip(*(change(*one, side * tau, rho) for one in given), strict=True)
            if side:
                found = _solve(list(programs), self.points, self.backward)[1]
                _check(found, f"program perturbed by {side * tau:+g}; try a smaller tau, or the other side: ")
                ends.append([back(_Point(r.x, r.y, r.s)) for r, back in zip(found, backs, strict=True)])
            else:
                ends.append(self.points)
        return list(zip(*ends, strict=True)), tau * (_SIDES[self.mode][0] - _SIDES[self.mode][1])


def _tau_rho(tau: float | None = None, rho: float = 0.0) -> tuple[float, float]:
    if tau is None or not (tau > 0 and rho >= 0):
        raise ValueError(f"the lpgd modes need derivative_kwargs with tau > 0 and rho >= 0, got {tau=}, {rho=}")
    return tau, rho


def _moved(program: ConeProgram, at: _Point, tangent: Any, step: float, rho: float) -> tuple[ConeProgram, Any]:
    """Perturb the data, and add rho/2 |x - x*|^2 to the objective."""
    dA, db, dc, dP = tangent
    P = program.P + step * dP + rho * sp.eye_array(program.n)
    c = program.c + step * dc - rho * at.x
    return ConeProgram(program.A + step * dA, program.b + step * db, c, program.cones, P), lambda found: found


def _tilted(program: ConeProgram, at: _Point, gradient: Any, step: float, rho: float) -> tuple[ConeProgram, Any]:
    """Add step (dx'x + ds's) + rho/2 (|x - x*|^2 + |s - s*|^2, the latter if ds is not 0); take step dy from b.

    s = b - Ax takes the slack out of the objective; its terms come back in y, the multiplier of Ax + s = b.
    """
    dx, dy, ds = gradient
    A, b, weight = program.A, program.b - step * dy, rho * ds.any()
    c = program.c + step * (dx - A.T @ ds) - rho * at.x - weight * (A.T @ (b - at.s))
    P = program.P + rho * sp.eye_array(program.n) + weight * (A.T @ A)
    back = lambda found: found._replace(y=found.y - step * ds - weight * (found.s - at.s))
    return ConeProgram(A, b, c, program.cones, P), back


def _gradient(A: Any, P: Any, x: Array, y: Array, gb: Array, gc: Array) -> tuple[Any, ...]:
    """Return cotangents of A, b, c, and of P unless it is None, from those of b and c."""
    i, j = A.indices, np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
    gA = sp.csc_matrix((y[i] * gc[j] - gb[i] * x[j], i, A.indptr), shape=A.shape)
    if P is None:
        return gA, gb, gc
    i, j = P.indices, np.repeat(np.arange(P.shape[1]), np.diff(P.indptr))
    share = np.where(i == j, 0.5, 1.0) if _is_upper(P) else 0.5
    return gA, gb, gc, sp.csc_matrix((share * (gc[i] * x[j] + x[i] * gc[j]), i, P.indptr), shape=P.shape)


def _solve(programs: list[ConeProgram], starts: Any, settings: Any) -> tuple[list[Any], list[Solution]]:
    """Solve programs, those of one shape and the same cones at once; return these groups, and all in order."""
    places: dict[Any, list[int]] = {}
    for k, program in enumerate(programs):
        places.setdefault((program.m, program.n, program.structure.cone), []).append(k)
    groups: list[tuple[list[int], Solutions]] = []
    for (m, n, _), index in places.items():
        cold = (np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan))
        rows = [cold if starts is None or starts[k] is None else starts[k] for k in index]
        start = tuple(map(np.stack, _columns(rows)))
        groups.append((index, solve_batch([programs[k] for k in index], warm_start=start, on_failure="nan", **settings)))
    order = {k: solution for index, found in groups for k, solution in zip(index, found, strict=True)}
    return groups, [order[k] for k in range(len(programs))]


def _check(solutions: list[Solution], where: str = "") -> None:
    """Raise SolverError if any has failed."""
    failed = {k: solution.status for k, solution in enumerate(solutions) if solution.status not in _USABLE}
    if failed:
        listed = ", ".join(f"{k} ({status})" for k, status in failed.items())
        what = f"no solution of program {listed}" if len(solutions) > 1 else f"the program is {failed[0]}"
        message = f"{where}{what}; certificates are in .solutions of this error"
        raise SolverError(message, tuple((k,) for k in failed), tuple(failed.values()), solutions)


def _info(program: ConeProgram, solution: Solution) -> dict[str, Any]:
    """Describe a solve as SCS does, times in milliseconds."""
    x, info, status = solution.x, solution.info, solution.status
    half = x @ (program.P @ x) / 2
    certified = {"infeasible": (np.inf, np.inf), "unbounded": (-np.inf, -np.inf)}
    primal, dual = certified.get(status, (half + program.c @ x, -half - program.b @ solution.y))
    return {
        "status": status, "status_val": _STATUS_VALUE[status], "iter": info["iterations"], "pobj": primal,
        "dobj": dual, "setup_time": 1e3 * info["setup_time"],
        "solve_time": 1e3 * (info["solve_time"] + info["refine_time"]),
    }  # fmt: skip


def _settings(given: Mapping[str, Any], jobs: int) -> dict[str, Any]:
    """Translate the keyword arguments of diffcp's solvers into those of `solve_batch`."""
    solver, names = given.get("solve_method", "SCS"), set(given) - _IGNORED - {"solve_method"}
    if solver not in _SOLVERS:
        raise ValueError(f"unknown solve_method {solver!r}; SCS, ECOS and Clarabel are accepted, SCS is used")
    if unknown := sorted(names - _PASSED - _TOLERANCES):
        known = ", ".join(sorted(_PASSED | _TOLERANCES | _IGNORED))
        raise TypeError(f"unknown keyword argument {unknown[0]!r}; the known ones are: {known}")
    settings = {"threads": None if jobs == -1 else jobs, **{name: given[name] for name in names - _TOLERANCES}}
    if solver not in ("SCS", None):
        settings.pop("max_iters", None)  # an interior-point method's: far too few for SCS
    if asked := [given[name] for name in names & _TOLERANCES]:
        # Refined solutions are never worse than 1e-10, and cannot be much better than 1e-12.
        refine = settings.get("refine", True)
        settings.setdefault("tol", min(max(min(asked), 1e-12), 1e-10) if refine else min(asked))
    return settings


def _cones(cones: Mapping[str, Any]) -> dict[str, Any]:
    """Read the zero cone's older name."""
    return {**{key: cones[key] for key in cones if key != "f"}, "z": cones.get("f", 0) + cones.get("z", 0)}


def _csc(matrix: Any) -> Any:
    """Copy into CSC with sorted rows and no duplicates."""
    copy = sp.csc_array(matrix, dtype=np.float64, copy=True)
    copy.sum_duplicates()
    return copy


def _is_upper(P: Any) -> bool:
    return not sp.tril(P, -1).count_nonzero()


def _whole(matrix: Any, P: Any) -> Any:
    """Return P, or a perturbation of it, with both triangles; of an upper triangle SCS reads the upper one."""
    if P is None and matrix is not None:
        raise ValueError("dP was given for a program without P")
    if P is None or (matrix is P and not _is_upper(P)):
        return matrix
    return sp.triu(matrix) + sp.triu(matrix, 1).T if _is_upper(P) else (matrix + matrix.T) / 2


def _columns(rows: Any) -> tuple[list[Any], ...]:
    """Turn the results of many programs, each in parts, into a list for each part."""
    return tuple(map(list, zip(*rows, strict=True)))

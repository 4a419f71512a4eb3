r"""diffcp's interface on conediff: ``import conediff.compat as diffcp`` runs programs written for diffcp.

Names, order of arguments, return values, cone keys and modes are diffcp's. But P is allowed and power cones
count, exactly, in every mode; and the caller's arrays stay as they were, so A keeps its explicit zeros.

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

from conediff.api.solution import Solution
from conediff.api.solve import solve_unchecked
from conediff.errors import SolverError
from conediff.program import Array, ConeProgram

ZERO, POS, SOC, PSD, EXP = "z", "l", "q", "s", "ep"

# diffcp's mode and our method: LSQR defines the derivative, "auto" computes the same one faster.
_METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}
# Between which perturbations an lpgd mode takes the difference, in units of tau; 0 is the solution itself.
_SIDES = {"lpgd": (1, -1), "lpgd_right": (1, 0), "lpgd_left": (0, -1)}
_SOLVERS = ("SCS", "ECOS", "Clarabel", "CLARABEL", None)
# What these call their tolerances; and what we need not know of them.
_TOLERANCES = {"eps", "eps_abs", "eps_rel", "abstol", "reltol", "feastol"}
_TOLERANCES |= {"tol_gap_abs", "tol_gap_rel", "tol_feas"}
_IGNORED = {"solve_method", "use_indirect", "gpu", "mkl", "abstol_inacc", "max_iter"}
_IGNORED |= {"reltol_inacc", "feastol_inacc"}
_STATUS_VALUE = {"solved": 1, "inaccurate": 2, "unbounded": -1, "infeasible": -2, "failed": -4}
_USABLE = ("solved", "inaccurate")
# A perturbed program, and what its solution says y is.
_Changed = tuple[ConeProgram, Callable[[Any], Array]]


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
    A, b, c, cone_dict
        As in `conediff.ConeProgram`; the zero cone may be called f or z.
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
    TypeError, ValueError
        If a keyword argument is unknown; if the mode, the solver or the data cannot be used.
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
    """Solve as `solve_and_derivative` does; return a dict of x, y, s, D, DT, and info with SCS's keys.

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

    Arguments, results and errors are those of `solve_and_derivative`, as lists; elements of ``warm_starts``
    and ``Ps`` may be None. ``n_jobs_forward`` threads solve and differentiate, ``n_jobs_backward`` solve
    perturbed programs in the lpgd modes; -1 means all processors. The callables are ``D_batch(dAs, dbs, dcs,
    dPs=None)`` and ``DT_batch(dxs, dys, dss, return_dP=False)``. A SolverError names all that failed.
    """
    jobs = (n_jobs_forward, n_jobs_backward)
    batch = _Batch(As, bs, cs, cone_dicts, warm_starts, Ps, mode, jobs, kwargs)
    _check(batch.solutions)
    xs, ys, ss = batch.own()
    return xs, ys, ss, batch.derivatives, batch.adjoints


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
        self, As: Any, bs: Any, cs: Any, cones: Any, starts: Any, Ps: Any, mode: str, jobs: Any, given: Any
    ) -> None:
        if mode not in (*_METHODS, *_SIDES):
            raise ValueError(f"unsupported mode {mode!r}; choose one of {', '.join((*_METHODS, *_SIDES))}")
        self.mode, self.parameters = mode, given.pop("derivative_kwargs", None) or {}
        forward, self.backward = (_settings(given, count) for count in jobs)
        self.Ps = [None if P is None else _csc(P) for P in ([None] * len(As) if Ps is None else Ps)]
        stated = zip(As, bs, cs, cones, self.Ps, strict=True)
        self.programs = [_program(*one) for one in stated]
        self.groups, self.solutions = _solve(self.programs, starts, forward)
        self.points = [_Point(r.x, r.y, r.s) for r in self.solutions]
        self.exact: list[Any] = []

    def own(self) -> tuple[Any, ...]:
        """Return xs, ys and ss; copies, for they are the caller's own."""
        return _columns([part.copy() for part in point] for point in self.points)

    def derivative(self, dA: Any, db: Any, dc: Any, dP: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the derivative of a single program."""
        return tuple(part[0] for part in self.derivatives([dA], [db], [dc], [dP], **kwargs))

    def adjoint(self, dx: Any, dy: Any, ds: Any, return_dP: bool = False, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the adjoint of the derivative of a single program."""
        return tuple(part[0] for part in self.adjoints([dx], [dy], [ds], return_dP, **kwargs))

    def derivatives(self, dAs: Any, dbs: Any, dcs: Any, dPs: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the derivatives to lists of perturbations."""
        dPs = [None] * len(self.Ps) if dPs is None else dPs
        given = zip(self.programs, self.Ps, dAs, dbs, dcs, dPs, strict=True)
        tangents = [_tangent(*one) for one in given]
        if self.mode in _METHODS:
            pairs = zip(self.points, tangents, strict=True)
            rows = [(db - dA @ p.x, dc + dA.T @ p.y + dP @ p.x) for p, (dA, db, dc, dP) in pairs]
            return _columns(self._apply(lambda D, db, dc: D.jvp(db=db, dc=dc), rows))
        ends, width = self._ends(_moved, tangents, kwargs)
        return _columns([(u - v) / width for u, v in zip(*pair, strict=True)] for pair in ends)

    def adjoints(self, dxs: Any, dys: Any, dss: Any, return_dP: bool = False, **kwargs: Any) -> Any:
        """Apply the adjoints to lists of cotangents."""
        if return_dP and any(P is None for P in self.Ps):
            raise ValueError("return_dP=True needs P, and there is a program without")
        sizes = [(program.n, program.m, program.m) for program in self.programs]
        given = zip(zip(dxs, dys, dss, strict=True), sizes, strict=True)
        cotangents = [tuple(map(np.reshape, parts, shape)) for parts, shape in given]
        if self.mode in _METHODS:
            pulled = self._apply(lambda D, dx, dy, ds: D.vjp(dx, dy, ds)[2:], cotangents)
            parts = [(p.x, p.y, gb, gc) for p, (gb, gc) in zip(self.points, pulled, strict=True)]
        else:
            ends, w = self._ends(_tilted, cotangents, kwargs)
            # The difference of two products y x' is each factor's difference times the other's mean.
            parts = [((u.x + v.x) / 2, (u.y + v.y) / 2, (v.y - u.y) / w, (u.x - v.x) / w) for u, v in ends]
        data = zip(self.programs, self.Ps, parts, strict=True)
        return _columns(_gradient(program.A, P if return_dP else None, *part) for program, P, part in data)

    def _apply(self, function: Callable[..., Any], inputs: list[Any]) -> list[Any]:
        """Apply the exact derivatives, those of a group at once; results in order."""
        self.exact = self.exact or [found.derivative(_METHODS[self.mode]) for _, found in self.groups]
        results: dict[int, Any] = {}
        for (index, _), D in zip(self.groups, self.exact, strict=True):
            parts = function(D, *map(np.stack, _columns(inputs[k] for k in index)))
            results.update(zip(index, zip(*parts, strict=True), strict=True))
        return [results[k] for k in range(len(inputs))]

    def _ends(self, change: Callable[..., Any], inputs: list[Any], kwargs: Any) -> tuple[list[Any], float]:
        """Return the points between which an lpgd mode takes differences, and how far apart they are."""
        known = {"tau": 0.0, "rho": 0.0, **self.parameters, **kwargs}
        tau, rho = known["tau"], known["rho"]
        if len(known) > 2 or not (tau > 0 and rho >= 0):
            raise ValueError(f"the lpgd modes need derivative_kwargs of tau > 0 and rho >= 0, got {known}")
        ends = []
        for side in _SIDES[self.mode]:
            if side == 0:
                ends.append(self.points)
                continue
            given = zip(self.programs, self.points, inputs, strict=True)
            changed = [change(*one, side * tau, rho) for one in given]
            found = _solve([program for program, _ in changed], self.points, self.backward)[1]
            _check(found, f"perturbed by {side * tau:+g} (a smaller tau, or the other side, may do): ")
            ends.append([_Point(r.x, back(r), r.s) for r, (_, back) in zip(found, changed, strict=True)])
        return list(zip(*ends, strict=True)), tau * (_SIDES[self.mode][0] - _SIDES[self.mode][1])


def _moved(program: ConeProgram, at: _Point, tangent: Any, step: float, rho: float) -> _Changed:
    """Perturb the data, and add rho/2 |x - x*|^2 to the objective."""
    dA, db, dc, dP = tangent
    P = program.P + step * dP + rho * sp.eye_array(program.n)
    A, b, c = program.A + step * dA, program.b + step * db, program.c + step * dc - rho * at.x
    return ConeProgram(A, b, c, program.cones, P), lambda found: found.y


def _tilted(program: ConeProgram, at: _Point, g: Any, step: float, rho: float) -> _Changed:
    """Take step dy from b; add step (dx'x + ds's) + rho/2 |x - x*|^2, and unless ds = 0 rho/2 |s - s*|^2.

    s = b - Ax takes the slack out of the objective; its terms come back in y, the multiplier of Ax + s = b.
    """
    dx, dy, ds = g
    A, b, weight = program.A, program.b - step * dy, rho * ds.any()
    P = program.P + rho * sp.eye_array(program.n) + weight * (A.T @ A)
    c = program.c + step * (dx - A.T @ ds) - rho * at.x - weight * (A.T @ (b - at.s))
    tilted = ConeProgram(A, b, c, program.cones, P)
    return tilted, lambda found: found.y - step * ds - weight * (found.s - at.s)


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
    """Solve programs, those of one shape and the same cones at once; return groups, and all in order."""
    places: dict[Any, list[int]] = {}
    for k, program in enumerate(programs):
        places.setdefault((program.m, program.n, program.structure.cone), []).append(k)
    groups: list[Any] = []
    for (m, n, _), index in places.items():
        cold = (np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan))
        rows = [cold if starts is None or starts[k] is None else starts[k] for k in index]
        start, members = tuple(map(np.stack, _columns(rows))), [programs[k] for k in index]
        groups.append((index, solve_unchecked(members, warm_start=start, on_failure="nan", **settings)))
    order = {k: one for index, found in groups for k, one in zip(index, found, strict=True)}
    return groups, [order[k] for k in range(len(programs))]


def _check(solutions: list[Solution], where: str = "") -> None:
    """Raise SolverError if any has failed."""
    failed = {k: one.status for k, one in enumerate(solutions) if one.status not in _USABLE}
    if failed:
        listed = ", ".join(f"{k} ({status})" for k, status in failed.items())
        what = f"no solution of program {listed}" if len(solutions) > 1 else f"the program is {failed[0]}"
        message = f"{where}{what}; certificates are in .solutions of this error"
        raise SolverError(message, tuple((k,) for k in failed), tuple(failed.values()), solutions)


def _info(program: ConeProgram, found: Solution) -> dict[str, Any]:
    """Describe a solve as SCS does, times in milliseconds."""
    half, status, info = found.x @ (program.P @ found.x) / 2, found.status, found.info
    certain = {"infeasible": np.inf, "unbounded": -np.inf}.get(status, 0.0)
    return {
        "status": status, "status_val": _STATUS_VALUE[status], "iter": info["iterations"],
        "pobj": certain or half + program.c @ found.x, "dobj": certain or -half - program.b @ found.y,
        "setup_time": 1e3 * info["setup_time"],
        "solve_time": 1e3 * (info["solve_time"] + info["refine_time"]),
    }  # fmt: skip


def _settings(given: Mapping[str, Any], jobs: int) -> dict[str, Any]:
    """Translate the keyword arguments of diffcp's solvers into those of `solve_batch`."""
    solver = given.get("solve_method", "SCS")
    if solver not in _SOLVERS:
        raise ValueError(f"unknown solve_method {solver!r}; SCS, ECOS and Clarabel are accepted, SCS is used")
    passed = {name: value for name, value in given.items() if name not in _TOLERANCES | _IGNORED}
    if solver not in ("SCS", None):
        passed.pop("max_iters", None)  # an interior-point method's: far too few for SCS
    if asked := [given[name] for name in given.keys() & _TOLERANCES]:
        # Refined solutions are never worse than 1e-10, and cannot be much better than 1e-12.
        tol = np.clip(min(asked), 1e-12, 1e-10) if passed.get("refine", True) else min(asked)
        passed.setdefault("tol", float(tol))
    return {"threads": None if jobs == -1 else jobs, **passed}


def _program(A: Any, b: Any, c: Any, cones: Mapping[str, Any], P: Any) -> ConeProgram:
    """Read a program: the zero cone's older name, cones that there are none of, and both triangles of P."""
    some = {key: size for key, size in cones.items() if np.size(size) and not np.array_equal(size, 0)}
    if "f" in some:
        some["z"] = some.pop("f") + some.get("z", 0)
    return ConeProgram(A, b, c, some, None if P is None else _whole(P, P))


def _tangent(program: ConeProgram, P: Any, dA: Any, db: Any, dc: Any, dP: Any) -> tuple[Any, ...]:
    """Read a perturbation: lengths checked, both triangles of dP."""
    if dP is not None and P is None:
        raise ValueError("dP was given for a program without P")
    whole = sp.csc_array((program.n, program.n)) if dP is None else _whole(_csc(dP), P)
    return _csc(dA), np.reshape(db, program.m), np.reshape(dc, program.n), whole


def _csc(matrix: Any) -> Any:
    """Copy into CSC with sorted rows and no duplicates."""
    copy = sp.csc_array(matrix, dtype=np.float64, copy=True)
    copy.sum_duplicates()
    return copy


def _is_upper(P: Any) -> bool:
    return not sp.tril(P, -1).count_nonzero()


def _whole(matrix: Any, P: Any) -> Any:
    """Return P, or a perturbation of it, with both triangles: mirrored where P is the upper one."""
    if _is_upper(P):
        return sp.triu(matrix) + sp.triu(matrix, 1).T
    return matrix if matrix is P else (matrix + matrix.T) / 2


def _columns(rows: Any) -> tuple[list[Any], ...]:
    """Turn the results of many programs, each in parts, into a list for each part."""
    return tuple(map(list, zip(*rows, strict=True)))

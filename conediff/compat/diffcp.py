r"""diffcp's interface on conediff: ``import conediff.compat as diffcp`` runs programs written for diffcp.

Names, order of arguments, return values, cone keys and modes are diffcp's. Differences: P is allowed, and
power cones are differentiated exactly, in every mode; the caller's arrays are not changed, so A keeps its
stored zeros.

The data enter the optimality conditions only through products. A tangent dA has the same effect as db = -dA x
together with dc = dA'y, and dP the same as dc = dP x. So the derivatives with respect to b and c suffice:

.. math:: g_A = y g_c^\top - g_b x^\top, \qquad g_P = \tfrac12 (g_c x^\top + x g_c^\top).

The lpgd modes, in ``lpgd``, take differences between perturbed programs instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from conediff.compat.arguments import is_upper, read_program, read_settings, read_tangent, to_csc
from conediff.compat.constants import METHODS, WITH_SOLUTION
from conediff.compat.lpgd import LPGD, SIDES, perturb_data, perturb_objective
from conediff.compat.reports import describe_solve, named_solver
from conediff.compat.solving import raise_failures, solve_programs, transpose
from conediff.program import Array, Point


def solve_and_derivative(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], warm_start: Any = None, mode: str = "lsqr",
    solve_method: str | None = "SCS", P: Any = None, **kwargs: Any,
) -> tuple[Array, Array, Array, Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve a cone program; return its solution and the derivative of its solution map.

    Parameters
    ----------
    A, b, c, cone_dict
        As in `conediff.ConeProgram`; the key of the zero cone may be f or z.
    warm_start : tuple of arrays (x, y, s), optional
    mode : {"lsqr", "lsmr", "dense", "lpgd", "lpgd_left", "lpgd_right"}
        "lsqr" solves the reduced system directly, and where that is singular returns the least-squares
        derivative of least norm: in both cases LSQR's answer, to more digits.
    solve_method : {"SCS", "ECOS", "Clarabel"}, optional
        Which solver comes first; Newton's method refines the solution. ECOS means SCS.
    P : sparse matrix or array, shape (n, n), optional
        Quadratic term of the objective x'Px / 2 + c'x: its upper triangle, or the whole symmetric matrix.
    **kwargs
        ``derivative_kwargs``, a dict of ``tau`` (perturbation, required in the lpgd modes) and ``rho``
        (proximal weight, 0 by default); settings of SCS; tolerances and ``verbose`` of ECOS and Clarabel;
        ``tol``, ``refine`` and ``threads`` of `conediff.solve`. Tolerances above 1e-10 have an effect only
        with ``refine=False``.

    Returns
    -------
    x, y, s : arrays, shape (n,), (m,), (m,)
    derivative : callable
        ``derivative(dA, db, dc, dP=None)`` returns dx, dy, ds. It uses the upper triangle of dP if P is an
        upper triangle, otherwise its symmetric part. Both callables also take ``tau`` and ``rho``.
    adjoint_derivative : callable
        ``adjoint_derivative(dx, dy, ds, return_dP=False)`` returns dA, db, dc, and dP on request; dA and dP
        are CSC matrices on the sparsity of A and P. If P is an upper triangle, each off-diagonal entry of dP
        is the sum of the two symmetric entries.

    Raises
    ------
    SolverError
        If the program has no solution. The callables raise it if a perturbed program has none.
    TypeError, ValueError
        If a keyword argument is unknown, or the mode, the solver or the data cannot be used.

    Warns
    -----
    DegeneracyWarning
        If the solution map is not differentiable; the callables then return the least-squares derivative.
    AccuracyWarning
        If the solution is less accurate than ``tol``, or a linear solve fell short.
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
    """Solve as `solve_and_derivative` does; return a dict of x, y, s, D, DT, and info.

    ``info`` has the keys and the words of the solver that was asked for (SCS if none was). With
    ``raise_on_error=False``, D and DT of a program without a solution are None, and info has its status.
    """
    kwargs["solve_method"] = solve_method
    batch = _Batch([(A, b, c, cone_dict, P)], [warm_start], mode, (-1, -1), kwargs)
    solution = batch.solutions[0]
    if raise_on_error:
        raise_failures(batch.solutions, batch.solver)
    D, DT = (batch.derivative, batch.adjoint) if solution.status in WITH_SOLUTION else (None, None)
    [x], [y], [s] = batch.copy_points()
    info = describe_solve(batch.programs[0], solution, batch.solver)
    return {"x": x, "y": y, "s": s, "info": info, "D": D, "DT": DT}


def solve_internal(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], solve_method: str | None = None,
    warm_start: Any = None, raise_on_error: bool = True, P: Any = None, **kwargs: Any,
) -> dict[str, Any]:  # fmt: skip
    """Solve as `solve_and_derivative_internal` does; D and DT are left out if there is a solution."""
    r = solve_and_derivative_internal(
        A, b, c, cone_dict, solve_method, warm_start, raise_on_error=raise_on_error, P=P, **kwargs
    )
    return {name: value for name, value in r.items() if value is None or name not in ("D", "DT")}


def solve_and_derivative_batch(
    As: Sequence[Any], bs: Sequence[Any], cs: Sequence[Any], cone_dicts: Sequence[Mapping[str, Any]],
    n_jobs_forward: int = -1, n_jobs_backward: int = -1, mode: str = "lsqr",
    warm_starts: Sequence[Any] | None = None, Ps: Sequence[Any] | None = None, **kwargs: Any,
) -> tuple[list[Array], list[Array], list[Array], Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve many cone programs; those of one shape and the same cones are solved together.

    Arguments, results and errors are those of `solve_and_derivative`, as lists; elements of ``warm_starts``
    and ``Ps`` may be None. ``n_jobs_forward`` threads solve and differentiate; ``n_jobs_backward`` threads
    solve the perturbed programs of the lpgd modes; -1 means all processors. The callables are ``D_batch(dAs,
    dbs, dcs, dPs=None)`` and ``DT_batch(dxs, dys, dss, return_dP=False)``. A SolverError names all programs
    that failed.
    """
    stated = zip(As, bs, cs, cone_dicts, [None] * len(As) if Ps is None else Ps, strict=True)
    batch = _Batch(stated, warm_starts, mode, (n_jobs_forward, n_jobs_backward), kwargs)
    raise_failures(batch.solutions, batch.solver)
    xs, ys, ss = batch.copy_points()
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
    """A list of programs with their solutions, and diffcp's callables.

    Parameters
    ----------
    stated : iterable of (A, b, c, cones, P)
        The programs in diffcp's terms.
    warm_starts : sequence of (x, y, s) or None, or None
    mode : str
    jobs : tuple of int, int
        Threads for the programs, and for the perturbed programs of the lpgd modes; -1 means all processors.
    options : dict
        The remaining keyword arguments of diffcp's functions.
    """

    def __init__(
        self,
        stated: Iterable[tuple[Any, ...]],
        warm_starts: Any,
        mode: str,
        jobs: tuple[int, int],
        options: dict[str, Any],
    ) -> None:
        if mode not in (*METHODS, *SIDES):
            raise ValueError(f"unsupported mode {mode!r}; choose one of {', '.join((*METHODS, *SIDES))}")
        self.mode, self.lpgd_parameters = mode, options.pop("derivative_kwargs", None) or {}
        forward, self.backward = (read_settings(options, count) for count in jobs)
        data = [(*rest, None if P is None else to_csc(P)) for *rest, P in stated]
        self.Ps = [P for *_, P in data]
        self.solver = named_solver(options.get("solve_method"))
        self.programs = [read_program(*one) for one in data]
        self.batches, self.solutions = solve_programs(self.programs, warm_starts, forward)
        self.points = [Point(r.x, r.y, r.s) for r in self.solutions]
        self.exact: list[Any] = []

    def __repr__(self) -> str:
        return f"<{len(self.programs)} of conediff.compat's programs, mode={self.mode!r}>"

    def copy_points(self) -> tuple[list[Array], ...]:
        """Return copies of xs, ys and ss, which the caller may change."""
        return transpose([array.copy() for array in point] for point in self.points)

    def derivative(self, dA: Any, db: Any, dc: Any, dP: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the derivative of a single program."""
        return tuple(one for [one] in self.derivatives([dA], [db], [dc], [dP], **kwargs))

    def adjoint(self, dx: Any, dy: Any, ds: Any, return_dP: bool = False, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the adjoint of the derivative of a single program."""
        return tuple(one for [one] in self.adjoints([dx], [dy], [ds], return_dP, **kwargs))

    def derivatives(self, dAs: Any, dbs: Any, dcs: Any, dPs: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """Apply the derivatives to lists of tangents of the data."""
        dPs = [None] * len(self.Ps) if dPs is None else dPs
        given = zip(self.programs, self.Ps, dAs, dbs, dcs, dPs, strict=True)
        tangents = [read_tangent(*one) for one in given]
        if self.mode in METHODS:
            pairs = zip(self.points, tangents, strict=True)
            rows = [(db - dA @ p.x, dc + dA.T @ p.y + dP @ p.x) for p, (dA, db, dc, dP) in pairs]
            return transpose(self._apply_exact(lambda D, db, dc: D.jvp(db=db, dc=dc), rows))
        lpgd = self._lpgd(kwargs)
        ends = lpgd.solve(perturb_data, self.programs, self.points, tangents)
        return transpose([(u - v) / lpgd.width for u, v in zip(*pair, strict=True)] for pair in ends)

    def adjoints(self, dxs: Any, dys: Any, dss: Any, return_dP: bool = False, **kwargs: Any) -> Any:
        """Apply the adjoints to lists of cotangents of the solutions."""
        if return_dP and any(P is None for P in self.Ps):
            raise ValueError("return_dP=True needs P, but there is a program without P")
        sizes = [(program.n, program.m, program.m) for program in self.programs]
        given = zip(zip(dxs, dys, dss, strict=True), sizes, strict=True)
        cotangents = [tuple(map(np.reshape, arrays, shape)) for arrays, shape in given]
        if self.mode in METHODS:
            found = self._apply_exact(lambda D, dx, dy, ds: D.vjp(dx, dy, ds)[2:], cotangents)
            vectors = [(p.x, p.y, gb, gc) for p, (gb, gc) in zip(self.points, found, strict=True)]
        else:
            lpgd = self._lpgd(kwargs)
            ends, w = lpgd.solve(perturb_objective, self.programs, self.points, cotangents), lpgd.width
            # u.y u.x' - v.y v.x' = (mean of y) (u.x - v.x)' - (v.y - u.y) (mean of x)'.
            vectors = [((u.x + v.x) / 2, (u.y + v.y) / 2, (v.y - u.y) / w, (u.x - v.x) / w) for u, v in ends]
        rows = zip(self.programs, self.Ps, vectors, strict=True)
        return transpose(
            _multiply_out(program.A, P if return_dP else None, *each) for program, P, each in rows
        )

    def _apply_exact(self, function: Callable[..., Any], inputs: list[Any]) -> list[Any]:
        """Apply the exact derivatives, one call per batch; return the results in the programs' order."""
        self.exact = self.exact or [found.derivative(METHODS[self.mode]) for _, found in self.batches]
        results: dict[int, Any] = {}
        for (index, _), D in zip(self.batches, self.exact, strict=True):
            stacks = function(D, *map(np.stack, transpose(inputs[k] for k in index)))
            results.update(zip(index, zip(*stacks, strict=True), strict=True))
        return [results[k] for k in range(len(inputs))]

    def _lpgd(self, kwargs: Mapping[str, Any]) -> LPGD:
        return LPGD.from_parameters(self.mode, {**self.lpgd_parameters, **kwargs}, self.backward, self.solver)


def _multiply_out(A: Any, P: Any, x: Array, y: Array, gb: Array, gc: Array) -> tuple[Any, ...]:
    """Return the cotangents of A, b and c, and of P unless it is None, from those of b and c.

    The formulas are in the module's docstring.
    """
    i, j = A.indices, np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
    gA = sp.csc_matrix((y[i] * gc[j] - gb[i] * x[j], i, A.indptr), shape=A.shape)
    if P is None:
        return gA, gb, gc
    i, j = P.indices, np.repeat(np.arange(P.shape[1]), np.diff(P.indptr))
    share = np.where(i == j, 0.5, 1.0) if is_upper(P) else 0.5
    return gA, gb, gc, sp.csc_matrix((share * (gc[i] * x[j] + x[i] * gc[j]), i, P.indptr), shape=P.shape)

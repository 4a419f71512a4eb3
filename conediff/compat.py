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
from conediff.solution import BatchDerivative, Solution, Solutions
from conediff.solve import solve_batch
from conediff.solver import SCS_SETTINGS
from conediff.structure import Array

ZERO, POS, SOC, PSD, EXP = "z", "l", "q", "s", "ep"

# diffcp's mode and our method: LSQR defines the derivative, "auto" computes the same one faster.
_METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}
# Between which perturbations an LPGD mode takes the difference, in units of tau; 0 is the solution itself.
_SIDES = {"lpgd": (1, -1), "lpgd_right": (1, 0), "lpgd_left": (0, -1)}
_SOLVERS = ("SCS", "ECOS", "Clarabel", "CLARABEL", None)
# What SCS, ECOS and Clarabel call their tolerances; and what changes how they get there, not where.
_TOLERANCES = {"eps", "eps_abs", "eps_rel", "abstol", "reltol", "feastol", "tol_gap_abs", "tol_gap_rel", "tol_feas"}
_IGNORED = {"use_indirect", "gpu", "mkl", "abstol_inacc", "reltol_inacc", "feastol_inacc", "max_iter", "max_threads"}
_PASSED = SCS_SETTINGS | {"tol", "refine", "threads"}
_STATUS_VALUE = {"solved": 1, "inaccurate": 2, "unbounded": -1, "infeasible": -2, "failed": -4}


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
        ``derivative(dA, db, dc, dP=None)`` returns dx, dy, ds. If P is an upper triangle that of dP is read,
        otherwise its symmetric part. Both callables also take ``tau`` and ``rho``.
    adjoint_derivative : callable
        ``adjoint_derivative(dx, dy, ds, return_dP=False)`` returns dA, db, dc, and dP if wanted; dA and dP are
        CSC matrices on the sparsity of A and P. If P is an upper triangle, entries of dP off the diagonal
        are those of both triangles together.

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
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], solve_method: str | None = None, warm_start: Any = None,
    mode: str = "lsqr", raise_on_error: bool = True, P: Any = None, **kwargs: Any,
) -> dict[str, Any]:  # fmt: skip
    """Solve as `solve_and_derivative` does; return a dict of x, y, s, D, DT, and info with SCS's keys and units.

    With ``raise_on_error=False`` a program without a solution has D and DT None; info tells its status.
    """
    kwargs["solve_method"] = solve_method
    batch = _Batch([A], [b], [c], [cone_dict], [warm_start], [P], mode, (-1, -1), kwargs)
    if raise_on_error or not batch.failed:
        batch.check()
    (x, y, s), has = batch.own()[0], not batch.failed
    info = _info(batch.programs[0], batch.solutions[0])
    D, DT = (batch.derivative, batch.adjoint_derivative) if has else (None, None)
    return {"x": x, "y": y, "s": s, "info": info, "D": D, "DT": DT}


def solve_and_derivative_batch(
    As: Sequence[Any], bs: Sequence[Any], cs: Sequence[Any], cone_dicts: Sequence[Mapping[str, Any]],
    n_jobs_forward: int = -1, n_jobs_backward: int = -1, mode: str = "lsqr",
    warm_starts: Sequence[Any] | None = None, Ps: Sequence[Any] | None = None, **kwargs: Any,
) -> tuple[list[Array], list[Array], list[Array], Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve many cone programs, those of one shape and the same cones together.

    Parameters
    ----------
    As, bs, cs, cone_dicts, warm_starts, Ps : sequences
        As in `solve_and_derivative`; elements of the last two may be None.
    n_jobs_forward, n_jobs_backward : int
        Threads of solving and differentiating, and of the perturbed solves in the lpgd modes; -1: all processors.
    mode, **kwargs
        As in `solve_and_derivative`, ``solve_method`` included.

    Returns
    -------
    xs, ys, ss : lists of arrays
    D_batch, DT_batch : callables
        From lists to lists: ``D_batch(dAs, dbs, dcs, dPs=None)``, ``DT_batch(dxs, dys, dss, return_dP=False)``.

    Raises
    ------
    SolverError
        If elements have no solution; its ``indices`` and ``statuses`` name them all.
    """
    batch = _Batch(As, bs, cs, cone_dicts, warm_starts, Ps, mode, (n_jobs_forward, n_jobs_backward), kwargs)
    batch.check()
    xs, ys, ss = _lists(batch.own(), 3)
    return xs, ys, ss, batch.derivatives, batch.adjoint_derivatives


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
        self, As: Sequence[Any], bs: Sequence[Any], cs: Sequence[Any], cones: Sequence[Mapping[str, Any]],
        starts: Sequence[Any] | None, Ps: Sequence[Any] | None, mode: str, jobs: tuple[int, int], kwargs: dict[str, Any],
    ) -> None:  # fmt: skip
        if mode not in (*_METHODS, *_SIDES):
            raise ValueError(f"unsupported mode {mode!r}; choose one of {', '.join((*_METHODS, *_SIDES))}")
        self.mode, self.parameters = mode, kwargs.pop("derivative_kwargs", None) or {}
        given = _settings(kwargs)
        forward, self.backward = ({"threads": None if count == -1 else count, **given} for count in jobs)
        self.Ps = [None if P is None else _csc(P) for P in ([None] * len(As) if Ps is None else Ps)]
        stated = zip(As, bs, cs, cones, map(_whole, self.Ps, self.Ps), strict=True)
        self.programs = [ConeProgram(A, b, c, _cones(cone), P) for A, b, c, cone, P in stated]
        self.groups, self.solutions = _solve(self.programs, starts, forward)
        self.points = [_Point(r.x, r.y, r.s) for r in self.solutions]

    @cached_property
    def exact(self) -> list[BatchDerivative]:
        """The derivatives of the groups, made when first needed."""
        return [solutions.derivative(_METHODS[self.mode]) for _, solutions in self.groups]

    def own(self) -> list[list[Array]]:
        """Return xs, ys and ss; copies, for they are the caller's own."""
        return _columns([[part.copy() for part in point] for point in self.points], 3)

    def derivative(self, dA: Any, db: Any, dc: Any, dP: Any = None, **parameters: Any) -> tuple[Any, ...]:
        """Apply the derivative of a single program."""
        return tuple(part[0] for part in self.derivatives([dA], [db], [dc], [dP], **parameters))

    def adjoint_derivative(
        self, dx: Any, dy: Any, ds: Any, return_dP: bool = False, **parameters: Any
    ) -> tuple[Any, ...]:
        """Apply the adjoint of the derivative of a single program."""
        return tuple(part[0] for part in self.adjoint_derivatives([dx], [dy], [ds], return_dP, **parameters))

    def derivatives(self, dAs: Any, dbs: Any, dcs: Any, dPs: Any = None, **parameters: Any) -> tuple[Any, ...]:
        """Apply the derivatives to lists of perturbations."""
        dPs = [None] * len(self.points) if dPs is None else dPs
        if any(P is None and dP is not None for P, dP in zip(self.Ps, dPs, strict=True)):
            raise ValueError("dP was given for a program without P")
        dPs = [0 * p.P if dP is None else _whole(_csc(dP), P) for p, P, dP in zip(self.programs, self.Ps, dPs, strict=True)]
        tangents = list(zip(map(_csc, dAs), dbs, dcs, dPs, strict=True))
        if self.mode in _METHODS:
            pairs = zip(tangents, self.points, strict=True)
            push = [(db - dA @ p.x, dc + dA.T @ p.y + dP @ p.x) for (dA, db, dc, dP), p in pairs]
            return _columns(self._apply(lambda D, db, dc: D.jvp(db=db, dc=dc), push), 3)
        tau, rho = self._tau_rho(parameters)
        high, low, width = self._ends(lambda k, step: _moved(self.programs[k], step, tangents[k], rho, self.points[k]), tau)
        differences = [[(h - l) / width for h, l in zip(*ends)] for ends in zip(high, low, strict=True)]
        return _columns(differences, 3)

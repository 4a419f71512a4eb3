"""SCS: a stack of programs in, raw solutions and statuses out.

Small programs of one structure are laid down a block diagonal, a *pile*, which is itself a cone program:
one call of SCS serves the whole pile, with no Python in between. SCS's tolerances hold for the pile as
a whole; what each program got out of it is measured, and mended, elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import scs
from numpy.typing import NDArray

from conediff.structure import Array, ConeData, Pattern, Structure

# Settings that are passed through to SCS; `eps` is short for both tolerances.
SCS_SETTINGS = frozenset(
    {
        "normalize",
        "scale",
        "adaptive_scale",
        "adaptive_diag_scale",
        "rho_x",
        "max_iters",
        "eps_abs",
        "eps_rel",
        "eps_infeas",
        "alpha",
        "time_limit_secs",
        "verbose",
        "acceleration_lookback",
        "acceleration_interval",
        "acceleration_type_1",
        "acceleration_regularization",
        "acceleration_relaxation",
        "write_data_filename",
        "log_csv_filename",
        "linear_solver",
    }
)

# Open intervals; SCS itself prints what is wrong and says no more.
_RANGES: dict[str, tuple[float, float, type]] = {
    "eps_abs": (0, np.inf, float),
    "eps_rel": (0, np.inf, float),
    "eps_infeas": (0, np.inf, float),
    "scale": (0, np.inf, float),
    "rho_x": (0, np.inf, float),
    "alpha": (0, 2, float),
    "max_iters": (0, np.inf, int),
    "acceleration_lookback": (-1, np.inf, int),
    "acceleration_interval": (0, np.inf, int),
}

# Rows of one pile, and programs in it at most.
_PILE_ROWS = 2048
_PILE_COUNT = 64
# Above this many nonzeros SCS's default (a parallel, blocked factorisation where it has one) pays.
_SMALL = 200_000

_STATUS = {
    1: "solved",
    2: "inaccurate",
    -1: "unbounded",
    -2: "infeasible",
    -6: "inaccurate",
    -7: "inaccurate",
    -3: "failed",
    -4: "failed",
}


@dataclass(frozen=True)
class RawSolution:
    """What SCS returned for a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        NaN where SCS has none; for an infeasible program y is a certificate (A'y = 0, b'y = -1), for an
        unbounded one x and s are (c'x = -1).
    status : str
        Of the pile as a whole: solved, inaccurate, infeasible, unbounded or failed.
    iterations : int
    setup_time, solve_time : float
        Seconds.
    residuals : tuple of float
        SCS's own primal residual, dual residual and gap.
    """

    x: Array
    y: Array
    s: Array
    status: str
    iterations: int
    setup_time: float
    solve_time: float
    residuals: tuple[float, float, float]

    @property
    def finite(self) -> bool:
        """Whether there is a point at all."""
        return bool(np.isfinite(self.x).all() and np.isfinite(self.y).all() and np.isfinite(self.s).all())

    def followed_by(self, other: RawSolution) -> RawSolution:
        """Return what SCS found when it went on from here, with the work of both."""
        return replace(
            other,
            iterations=self.iterations + other.iterations,
            setup_time=self.setup_time + other.setup_time,
            solve_time=self.solve_time + other.solve_time,
        )


def _checked(name: str, value: Any, low: float, high: float, kind: type) -> None:
    """Raise where a number is not of its kind, or not within (low, high)."""
    right_kind = isinstance(value, (int, np.integer) if kind is int else (int, float, np.number))
    if isinstance(value, bool) or not right_kind or not low < value < high:
        bounds = f"above {low:g}" if np.isinf(high) else f"between {low:g} and {high:g}"
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"solver setting {name!r} must be {what} {bounds}, got {value!r}")


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return SCS's settings with ``eps`` spelt out.

    Raises
    ------
    TypeError
        If a name is not one of SCS's; the message lists those that are.
    ValueError
        If a value is out of SCS's range.
    """
    unknown = sorted(set(settings) - SCS_SETTINGS - {"eps"})
    if unknown:
        known = ", ".join(sorted(SCS_SETTINGS | {"eps"}))
        raise TypeError(f"unknown solver setting {unknown[0]!r}; the settings of SCS are: {known}")
    result = dict(settings)
    eps = result.pop("eps", None)
    if eps is not None:
        result.setdefault("eps_abs", eps)
        result.setdefault("eps_rel", eps)
    for name, (low, high, kind) in _RANGES.items():
        if name in result:
            _checked(name, result[name], low, high, kind)
    return result


class Pile:
    """A fixed number of programs of one structure as one cone program.

    Parameters
    ----------
    structure : Structure
    count : int
        Programs in the pile; 1 where the cone cannot be piled (SCS takes one box cone only).
    """

    def __init__(self, structure: Structure, count: int) -> None:
        self.structure = structure
        self.count = count
        self.cone, self.rows = structure.cone.pile(count)
        self._cones = self.cone.to_dict()
        # A pile keeps the rows of each copy in their order, so the entries of a column stay sorted.
        stacked = structure.A.stacked(count)
        self._A = Pattern(stacked.shape, stacked.indptr, self.rows.ravel()[stacked.indices].astype(np.int32))
        upper = structure.P.indices <= structure.P.columns
        self._upper = np.flatnonzero(upper)
        self._P = _upper_pattern(structure.P, upper).stacked(count)

    def solve(
        self,
        data: ConeData,
        settings: Mapping[str, Any],
        warm_start: tuple[Array, Array, Array] | None = None,
    ) -> RawSolution:
        """Solve the programs of the pile.

        Parameters
        ----------
        data : ConeData
            Of exactly `count` programs.
        settings : mapping
            Of SCS, as `checked_settings` returns them.
        warm_start : tuple of arrays, optional
            x, y and s, shapes (count, n), (count, m), (count, m).

        Raises
        ------
        KeyboardInterrupt
            If the user interrupted SCS.
        """
        n = self.structure.n
        arguments = {"verbose": False, **settings}
        if self._A.nnz + self._P.nnz < _SMALL:
            arguments.setdefault("linear_solver", "qdldl")
        solver = scs.SCS(self._scs_data(data), dict(self._cones) or {"l": 1}, **arguments)
        start = self._scs_start(warm_start)
        raw = solver.solve(bool(start), **start)
        info = raw["info"]
        if info["status_val"] == -5:
            raise KeyboardInterrupt
        return RawSolution(
            x=raw["x"].reshape(self.count, n),
            y=raw["y"][self.rows],
            s=raw["s"][self.rows],
            status=_STATUS.get(info["status_val"], "failed"),
            iterations=int(info["iter"]),
            setup_time=info["setup_time"] / 1e3,
            solve_time=info["solve_time"] / 1e3,
            residuals=(info["res_pri"], info["res_dual"], info["gap"]),
        )

    def _scs_data(self, data: ConeData) -> dict[str, Any]:
        """Stack the numbers; a program without rows gets one that says 0 <= 1, for SCS wants one."""
        m, n, k = self.structure.m, self.structure.n, self.count
        A = self._A.matrix(_spread(data.A, k).ravel())
        b = np.empty(k * m)
        b[self.rows] = data.b
        if m == 0:
            A, b = sp.csc_array((1, k * n)), np.ones(1)
        result: dict[str, Any] = {"A": A, "b": b, "c": _spread(data.c, k).ravel()}
        if self._P.nnz:
            result["P"] = self._P.matrix(_spread(data.P, k)[:, self._upper].ravel())
        return result

    def _scs_start(self, start: tuple[Array, Array, Array] | None) -> dict[str, Array]:
        """Lay a warm start down the pile; none for a program without rows."""
        if start is None or self.structure.m == 0:
            return {}
        x, y, s = start
        piled_y, piled_s = np.empty(y.size), np.empty(s.size)
        piled_y[self.rows], piled_s[self.rows] = y, s
        return {"x": x.ravel(), "y": piled_y, "s": piled_s}


class Piles:
    """The piles of one structure, each made when it is first needed.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self._made: dict[int, Pile] = {}
        self._lock = threading.Lock()

    def of(self, count: int) -> Pile:
        """Return the pile of so many programs."""
        with self._lock:
            if count not in self._made:
                self._made[count] = Pile(self.structure, count)
            return self._made[count]

    def size(self, total: int) -> int:
        """Return how many programs of a stack go into one pile; threads do not matter."""
        if not self.structure.cone.pileable:
            return 1
        rows = max(1, self.structure.n + self.structure.m)
        return max(1, min(_PILE_COUNT, _PILE_ROWS // rows, total))


def _spread(array: Array, count: int) -> Array:
    """Repeat a single shared row for every program of the pile."""
    return np.broadcast_to(array, (count, array.shape[1]))


def _upper_pattern(pattern: Pattern, upper: NDArray[np.bool_]) -> Pattern:
    """Return the upper triangle of a pattern."""
    counts = np.bincount(pattern.columns[upper], minlength=pattern.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Pattern(pattern.shape, indptr, pattern.indices[upper])

"""SCS: a stack of programs in, raw solutions and statuses out.

Small programs of one structure are laid down a block diagonal, a *pile*, which is itself a cone program:
one call of SCS serves the whole pile, with no Python in between. SCS's tolerances hold for the pile as
a whole; what each program got out of it is measured, and mended, elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scs
from numpy.typing import NDArray

from conediff.parallel.threads import give_interrupts_back
from conediff.program import Array, ConeData, Pattern, Structure

# Rows of one pile, and programs in it at most.
_PILE_ROWS = 2048
_PILE_COUNT = 64
# Above this many nonzeros, and with more than so many to a row, SCS's default (a blocked, parallel
# factorisation where it has one) pays; up to here workspaces are kept.
_SMALL, _SPARSE = 200_000, 10

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
        self._kept = _Workspaces()

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
        if self._A.nnz + self._P.nnz < max(_SMALL, _SPARSE * (self._A.shape[0] + self._A.shape[1])):
            arguments.setdefault("linear_solver", "qdldl")
        start = self._scs_start(warm_start)
        try:
            raw = self._run(data, arguments, start)
        finally:
            give_interrupts_back()
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

    def _run(self, data: ConeData, arguments: dict[str, Any], start: dict[str, Array]) -> dict[str, Any]:
        """Call SCS; where only b and c have moved since an earlier call, with its scaling and factor."""
        b, c = self._vectors(data)
        shared = len(data.A) == 1 and len(data.P) == 1 and self._A.nnz + self._P.nnz < _SMALL
        # What outlives a call would make the next one depend on it: the memory of the acceleration, and where
        # SCS's projection onto a box cone begins.
        remembers = arguments.get("acceleration_lookback") != 0 or self.cone.bl is not None
        if remembers or not shared:
            result: dict[str, Any] = self._workspace(data, b, c, arguments).solve(bool(start), **start)
            return result
        key = (data.A.tobytes(), data.P.tobytes(), *sorted(arguments.items()))
        solver = self._kept.take(key)
        kept = solver is not None
        if not kept:
            # Without b and c, which would leave their mark on the scaling.
            solver = self._workspace(data, np.zeros(b.size), np.zeros(c.size), arguments)
        solver.update(b=b, c=c)
        result = solver.solve(bool(start), **start)
        if kept:
            result["info"]["setup_time"] = 0.0
        if result["info"]["scale_updates"] == 0:
            self._kept.give(key, solver)
        return result

    def _workspace(self, data: ConeData, b: Array, c: Array, arguments: dict[str, Any]) -> Any:
        """Set SCS up."""
        k = self.count
        A = self._A.matrix(_spread(data.A, k).ravel()) if self.structure.m else sp.csc_array((1, c.size))
        numbers: dict[str, Any] = {"A": A, "b": b, "c": c}
        if self._P.nnz:
            numbers["P"] = self._P.matrix(_spread(data.P, k)[:, self._upper].ravel())
        return scs.SCS(numbers, dict(self._cones) or {"l": 1}, **arguments)

    def _vectors(self, data: ConeData) -> tuple[Array, Array]:
        """Stack b and c; a program without rows gets one that says 0 <= 1, for SCS wants one."""
        b = np.empty(self.count * self.structure.m)
        b[self.rows] = data.b
        return (b if b.size else np.ones(1)), _spread(data.c, self.count).ravel()

    def _scs_start(self, start: tuple[Array, Array, Array] | None) -> dict[str, Array]:
        """Lay a warm start down the pile; none for a program without rows."""
        if start is None or self.structure.m == 0:
            return {}
        x, y, s = start
        piled_y, piled_s = np.empty(y.size), np.empty(s.size)
        piled_y[self.rows], piled_s[self.rows] = y, s
        return {"x": x.ravel(), "y": piled_y, "s": piled_s}


class _Workspaces:
    """SCS's workspaces that nobody uses at the moment, of the matrices and settings that were last used."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._free: list[Any] = []
        self._lock = threading.Lock()

    def take(self, key: tuple[Any, ...]) -> Any:
        """Take a workspace of this key; None if there is none."""
        with self._lock:
            return self._free.pop() if self._free and self._key == key else None

    def give(self, key: tuple[Any, ...], workspace: Any) -> None:
        """Let others use it."""
        with self._lock:
            if self._key != key:
                self._key, self._free = key, []
            self._free.append(workspace)


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

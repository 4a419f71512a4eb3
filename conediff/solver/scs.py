"""SCS: a stack of programs in, raw solutions and statuses out.

Small programs of one structure are laid down a block diagonal, a *pile*, which is itself a cone program: one
call of SCS solves the whole pile. SCS's tolerances hold for the pile as a whole; the residual of each program
is measured afterwards (see `schedule`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.sparse as sp
import scs
from numpy.typing import NDArray

from conediff.parallel.interrupts import restore_interrupt_handler
from conediff.program import Array, ConeData, Pattern, Point, Structure
from conediff.solver.constants import (
    PILE_COUNT,
    PILE_ROWS,
    QDLDL_NONZEROS,
    QDLDL_NONZEROS_PER_ROW,
    SCALE_RANGE,
    SCALE_STEP,
)
from conediff.solver.quiet import nothing_printed
from conediff.solver.raw import RawSolution

# All statuses of SCS (its header glbopts.h). An inaccurate certificate (-6, -7) is not a certificate: the
# point is refined like any other. -5 means that the user interrupted SCS.
_STATUS = {
    2: "inaccurate",  # SCS_SOLVED_INACCURATE
    1: "solved",  # SCS_SOLVED
    0: "failed",  # SCS_UNFINISHED
    -1: "unbounded",  # SCS_UNBOUNDED
    -2: "infeasible",  # SCS_INFEASIBLE
    -3: "failed",  # SCS_INDETERMINATE
    -4: "failed",  # SCS_FAILED
    -6: "inaccurate",  # SCS_UNBOUNDED_INACCURATE
    -7: "inaccurate",  # SCS_INFEASIBLE_INACCURATE
}
_INTERRUPTED = -5  # SCS_SIGINT
# What SCS says where it cannot set up: its validation or its factorisation of the data failed.
_REFUSED = "ScsWork allocation error!"


class SCSRefusal(Exception):
    """SCS cannot set up these data."""


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
        self._cones = self.cone.to_scs()
        # A pile keeps the rows of each copy in their order, so the entries of a column stay sorted.
        stacked = structure.A.block_diagonal(count)
        self._A = Pattern(stacked.shape, stacked.indptr, self.rows.ravel()[stacked.indices].astype(np.int32))
        upper = structure.P.indices <= structure.P.columns
        self._upper = np.flatnonzero(upper)
        self._P = _upper_pattern(structure.P, upper).block_diagonal(count)
        self._kept = _Workspaces()

    def solve(
        self,
        data: ConeData,
        settings: Mapping[str, Any],
        start: Point | None = None,
    ) -> RawSolution:
        """Solve the programs of the pile.

        Parameters
        ----------
        data : ConeData
            Of exactly `count` programs.
        settings : mapping
            Of SCS, as `checked_settings` returns them.
        start : Point, optional
            Where to begin.

        Raises
        ------
        KeyboardInterrupt
            If the user interrupted SCS.
        SCSRefusal
            If SCS cannot set up the data.
        """
        n = self.structure.n
        arguments = {"verbose": False, **settings}
        if self._A.nnz + self._P.nnz < max(
            QDLDL_NONZEROS, QDLDL_NONZEROS_PER_ROW * (self._A.shape[0] + self._A.shape[1])
        ):
            arguments.setdefault("linear_solver", "qdldl")
        try:
            with nullcontext() if arguments["verbose"] else nothing_printed():
                raw = self._run(data, arguments, self._warm_start(start))
        finally:
            restore_interrupt_handler()
        info = raw["info"]
        if info["status_val"] == _INTERRUPTED:
            raise KeyboardInterrupt
        return RawSolution(
            x=raw["x"].reshape(self.count, n),
            y=raw["y"][self.rows],
            s=raw["s"][self.rows],
            status=_STATUS[info["status_val"]],
            iterations=int(info["iter"]),
            setup_time=info["setup_time"] / 1e3,
            solve_time=info["solve_time"] / 1e3,
        )

    def _run(self, data: ConeData, arguments: dict[str, Any], start: dict[str, Array]) -> dict[str, Any]:
        """Call SCS; where only b and c have moved since an earlier call, with its scaling and factor."""
        b, c = self._vectors(data)
        shared = len(data.A) == 1 and len(data.P) == 1 and self._A.nnz + self._P.nnz < QDLDL_NONZEROS
        # A kept workspace would make a call depend on the one before, by the memory of the acceleration and
        # by the point where SCS's projection onto a box cone begins.
        remembers = arguments.get("acceleration_lookback") != 0 or self.cone.remembered_by_scs
        if remembers or not shared:
            result: dict[str, Any] = self._workspace(data, b, c, arguments).solve(bool(start), **start)
            return result
        key = (data.A.tobytes(), data.P.tobytes(), *sorted(arguments.items()))
        solver = self._kept.take(key)
        kept = solver is not None
        if not kept:
            # With b = 0 and c = 0, because SCS's scaling depends on them.
            solver = self._workspace(data, np.zeros(b.size), np.zeros(c.size), arguments)
        solver.update(b=b, c=c)
        result = solver.solve(bool(start), **start)
        if kept:
            result["info"]["setup_time"] = 0.0
        if result["info"]["scale_updates"] == 0:
            self._kept.give(key, solver)
        return result

    def _workspace(self, data: ConeData, b: Array, c: Array, arguments: dict[str, Any]) -> Any:
        """Set SCS up.

        Raises
        ------
        SCSRefusal
            If SCS cannot set up the data.
        """
        k = self.count
        A = self._A.matrix(_spread(data.A, k).ravel()) if self.structure.m else sp.csc_array((1, c.size))
        numbers: dict[str, Any] = {"A": A, "b": b, "c": c}
        if self._P.nnz:
            numbers["P"] = self._P.matrix(_spread(data.P, k)[:, self._upper].ravel())
        try:
            return scs.SCS(numbers, dict(self._cones) or {"l": 1}, **arguments)
        except ValueError as error:
            if str(error) == _REFUSED:
                raise SCSRefusal(_REFUSED) from error
            raise

    def _vectors(self, data: ConeData) -> tuple[Array, Array]:
        """Stack b and c; a program without rows gets the row 0 <= 1, because SCS needs one."""
        b = np.empty(self.count * self.structure.m)
        b[self.rows] = data.b
        return (b if b.size else np.ones(1)), _spread(data.c, self.count).ravel()

    def _warm_start(self, start: Point | None) -> dict[str, Array]:
        """Lay a start down the pile; there is none for a program without rows."""
        if start is None or self.structure.m == 0:
            return {}
        x, y, s = start
        piled_y, piled_s = np.empty(y.size), np.empty(s.size)
        piled_y[self.rows], piled_s[self.rows] = y, s
        return {"x": x.ravel(), "y": piled_y, "s": piled_s}


class _Workspaces:
    """SCS's workspaces that are not in use, for the matrices and settings of the last call."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._free: list[Any] = []
        self._lock = threading.Lock()

    def take(self, key: tuple[Any, ...]) -> Any:
        """Take a workspace of this key; None if there is none."""
        with self._lock:
            return self._free.pop() if self._free and self._key == key else None

    def give(self, key: tuple[Any, ...], workspace: Any) -> None:
        """Make a workspace available again."""
        with self._lock:
            if self._key != key:
                self._key, self._free = key, []
            self._free.append(workspace)


class Piles:
    """The piles of one structure; each is made when it is first needed.

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
        """Return how many programs of a stack go into one pile, whatever the number of threads."""
        if not self.structure.cone.pileable:
            return 1
        rows = max(1, self.structure.n + self.structure.m)
        return max(1, min(PILE_COUNT, PILE_ROWS // rows, total))


def scale_for(data: ConeData, best: Point | None) -> float:
    """Return SCS's `scale` for these programs: about |y| / |s|, as far as they are known.

    Without a point it is guessed from the data: s is of the size of b, y of that of c, or of P x where A x is
    b.
    """
    P, A, b, c = (float(np.abs(part).max(initial=0.0)) for part in (data.P, data.A, data.b, data.c))
    guess = _power_of_two((c / b if b else 0.0) + (P / A if A else 0.0))
    if best is None:
        return guess
    y, s = np.linalg.norm(best.y), np.linalg.norm(best.s)
    if np.isfinite(y) and s > 0:
        return _power_of_two(min(max(float(y / s), guess / SCALE_STEP), guess * SCALE_STEP))
    return guess


def _power_of_two(scale: float) -> float:
    """Return the nearest power of two within SCALE_RANGE."""
    low, high = SCALE_RANGE
    return float(np.exp2(np.round(np.log2(min(max(scale, low), high)))))


def _spread(array: Array, count: int) -> Array:
    """Repeat a single shared row for every program of the pile."""
    return np.broadcast_to(array, (count, array.shape[1]))


def _upper_pattern(pattern: Pattern, upper: NDArray[np.bool_]) -> Pattern:
    """Return the upper triangle of a pattern."""
    counts = np.bincount(pattern.columns[upper], minlength=pattern.shape[1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Pattern(pattern.shape, indptr, pattern.indices[upper])

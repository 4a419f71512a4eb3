"""What a solver returned, before it is refined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conediff.program import Array


@dataclass(frozen=True)
class RawSolution:
    """What SCS or Clarabel returned for a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
        NaN where there is none; for an infeasible program y is a certificate (A'y = 0, b'y = -1), for an
        unbounded one x and s are (c'x = -1).
    status : str
        Of the pile as a whole: solved, inaccurate, infeasible, unbounded or failed.
    iterations : int
    setup_time, solve_time : float
        Seconds.
    """

    x: Array
    y: Array
    s: Array
    status: str
    iterations: int
    setup_time: float
    solve_time: float

    @property
    def finite(self) -> bool:
        """Whether there is a point at all."""
        return bool(np.isfinite(self.x).all() and np.isfinite(self.y).all() and np.isfinite(self.s).all())

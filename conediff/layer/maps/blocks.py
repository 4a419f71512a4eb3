"""A block of the data (P, A, b, c or d) as an affine function of all features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scipy.sparse as sp

from conediff.program import Array

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class AffineBlock:
    """One block of the data (P, A, b, c or d) as ``matrix @ features + constant``.

    Parameters
    ----------
    matrix : csc_array, shape (entries, features)
        Stored by columns, because the columns of some parameters are then cheap to slice.
    constant : array, shape (entries,)
    """

    matrix: sp.csc_array
    constant: Array

    def touched_by(self, span: Span) -> bool:
        """Return whether this block depends on any feature in the span."""
        return bool(self.matrix.indptr[span[0]] < self.matrix.indptr[span[1]])

    def columns(self, spans: Sequence[Span]) -> sp.csc_array:
        """Return the columns of these spans side by side; the matrix itself if they are all columns."""
        runs: list[Span] = []
        for start, stop in spans:
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((start, stop))
        if runs == [(0, self.matrix.shape[1])]:
            return self.matrix
        return sp.csc_array(sp.hstack([self._run(start, stop) for start, stop in runs], format="csc"))

    def _run(self, start: int, stop: int) -> sp.csc_array:
        """Return the columns from start to stop as a matrix that shares the arrays of the whole one."""
        indptr = self.matrix.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return sp.csc_array(
            (self.matrix.data[inside], self.matrix.indices[inside], indptr - indptr[0]),
            shape=(self.matrix.shape[0], stop - start),
        )

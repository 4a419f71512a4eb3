"""One part of the data as an affine function of all features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scipy.sparse as sp

from conediff.program import Array

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class AffineBlock:
    """One part of the data (P, A, b, c or d) as ``matrix @ features + constant``.

    Parameters
    ----------
    matrix : csc_array, shape (entries, features)
        By columns, so that those of some parameters are a cheap slice.
    constant : array, shape (entries,)
    """

    matrix: sp.csc_array
    constant: Array

    def touched_by(self, span: Span) -> bool:
        """Whether any of these features reaches this part."""
        return bool(self.matrix.indptr[span[0]] < self.matrix.indptr[span[1]])

    def columns(self, spans: Sequence[Span]) -> sp.csc_array:
        """Return the columns of these spans side by side; of all spans, the matrix itself."""
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
        indptr = self.matrix.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return sp.csc_array(
            (self.matrix.data[inside], self.matrix.indices[inside], indptr - indptr[0]),
            shape=(self.matrix.shape[0], stop - start),
        )

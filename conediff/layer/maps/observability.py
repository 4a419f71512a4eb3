"""Observability: which changes of a cone program's data and solution reach parameters and outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.layer.maps.problem import ProblemMaps
from conediff.program import Array, ConeData

# matrix @ vector counts as nonzero if its largest entry exceeds this fraction of the product of the largest
# entries of matrix and vector. Null vectors of K have relative errors of about 1e-9. A larger value hides
# weak dependence, a smaller one takes rounding errors for dependence.
_RELATIVE_THRESHOLD = 1e-6


@dataclass(frozen=True, eq=False)
class MapsObservability:
    """The `Observability` of `conediff.derivative.diagnostics` for a problem known through its maps.

    A layer's user observes a cone program only through the parameters and the outputs.

    Parameters
    ----------
    maps : ProblemMaps
    """

    maps: ProblemMaps

    def of_data(self, g: ConeData) -> NDArray[np.bool_]:
        """Return whether a cotangent of the data reaches a parameter, shape (B,)."""
        cotangents = (g.P, g.A, g.b, g.c)
        reached = np.zeros(g.count, dtype=bool)
        size = np.max([_largest(cotangent) for cotangent in cotangents], axis=0)
        # The fifth block, the objective's constant, has no cotangent here.
        for block, cotangent in zip(self.maps.blocks, cotangents, strict=False):
            if block.matrix.nnz:
                threshold = _RELATIVE_THRESHOLD * size * abs(block.matrix).max()
                reached |= _largest((block.matrix.T @ cotangent.T).T) > threshold
        return reached

    def of_solution(self, dx: Array, dy: Array) -> NDArray[np.bool_]:
        """Return whether a change of the solution reaches an output, shape (B,)."""
        reached = np.zeros(len(dx), dtype=bool)
        size = np.maximum(_largest(dx), _largest(dy))
        for output in self.maps.outputs:
            if output.matrix is not None and output.matrix.nnz:
                change = (output.matrix @ (dx if output.kind == "primal" else dy).T).T
                reached |= _largest(change) > _RELATIVE_THRESHOLD * size * abs(output.matrix).max()
        return reached

    def __reduce__(self) -> tuple[type[MapsObservability], tuple[Any, ...]]:
        """Pickle only the maps that the two methods read: blocks and outputs."""
        return MapsObservability, (replace(self.maps, parameters=(), duals=()),)

    def take(self, index: NDArray[np.intp] | slice) -> MapsObservability:
        """Return the observability of the programs at these positions; it is the same for all programs."""
        return self


def _largest(stack: Array) -> Array:
    """Return the largest absolute entry of each row, shape (rows,); 0 for empty rows."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0)
    return largest

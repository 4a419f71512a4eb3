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

    def of_data(self, g: ConeData, answer: ConeData | None = None) -> NDArray[np.bool_]:
        """Return whether a cotangent of the data reaches a parameter, shape (B,)."""
        reached = np.zeros(g.count, dtype=bool)
        size = np.max([_largest(part) for part in _parts(g)], axis=0)
        sizes = [size] * 4 if answer is None else [np.maximum(size, part) for part in _sizes(answer)]
        # The fifth block, the objective's constant, has no cotangent here.
        for block, cotangent, size in zip(self.maps.blocks, _parts(g), sizes, strict=False):
            if block.matrix.nnz:
                threshold = _RELATIVE_THRESHOLD * size * abs(block.matrix).max()
                reached |= _largest((block.matrix.T @ cotangent.T).T) > threshold
        return reached

    def of_solution(
        self, dx: Array, dy: Array, answer: tuple[Array, Array] | None = None
    ) -> NDArray[np.bool_]:
        """Return whether a change of the solution reaches an output, shape (B,)."""
        reached = np.zeros(len(dx), dtype=bool)
        size = np.max([_largest(part) for part in (dx, dy, *(answer or ()))], axis=0)
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


def _parts(g: ConeData) -> tuple[Array, Array, Array, Array]:
    return g.P, g.A, g.b, g.c


def _sizes(g: ConeData) -> list[Array]:
    """Return the sizes of cotangents of P and of A, and of those of b and c together, twice."""
    P, A, b, c = (_largest(part) for part in _parts(g))
    return [P, A, np.maximum(b, c), np.maximum(b, c)]


def _largest(stack: Array) -> Array:
    """Return the largest absolute entry of each row, shape (rows,); 0 for empty rows."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0)
    return largest

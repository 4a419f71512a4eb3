"""What a user sees of the cone program behind a problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.layer.maps.problem import ProblemMaps
from conediff.program import Array, ConeData

# Relative to the largest entry of what is looked at; null vectors are known to about 1e-9.
_THRESHOLD = 1e-6


@dataclass(frozen=True, eq=False)
class MapsObservability:
    """Only what the maps carry to parameters and outputs is seen; see `diagnostics.Observability`."""

    maps: ProblemMaps

    def of_data(self, g: ConeData) -> NDArray[np.bool_]:
        """Whether a cotangent of the data reaches a parameter, shape (B,)."""
        seen = np.zeros(g.count, dtype=bool)
        size = np.max([_largest(part) for part in (g.P, g.A, g.b, g.c)], axis=0)
        for block, part in zip(self.maps.blocks, (g.P, g.A, g.b, g.c), strict=False):
            if block.matrix.nnz:
                seen |= _largest((block.matrix.T @ part.T).T) > _THRESHOLD * size * abs(block.matrix).max()
        return seen

    def of_solution(self, dx: Array, dy: Array) -> NDArray[np.bool_]:
        """Whether a change of the solution reaches an output, shape (B,)."""
        seen = np.zeros(len(dx), dtype=bool)
        size = np.maximum(_largest(dx), _largest(dy))
        for output in self.maps.outputs:
            if output.matrix is not None and output.matrix.nnz:
                change = (output.matrix @ (dx if output.kind == "primal" else dy).T).T
                seen |= _largest(change) > _THRESHOLD * size * abs(output.matrix).max()
        return seen

    def __reduce__(self) -> tuple[type[MapsObservability], tuple[Any, ...]]:
        """Pickle what is looked at, not all of the maps."""
        return MapsObservability, (replace(self.maps, parameters=(), duals=()),)

    def take(self, index: NDArray[np.intp] | slice) -> MapsObservability:
        """Return what is seen of the programs at these positions: of each the same."""
        return self


def _largest(stack: Array) -> Array:
    largest: Array = np.abs(stack).max(axis=1, initial=0.0)
    return largest

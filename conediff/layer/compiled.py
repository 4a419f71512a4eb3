"""A problem brought to cone form: its maps, the solver of its programs, and what of these a user observes."""

from __future__ import annotations

from typing import Any

from conediff.layer.maps import MapsObservability, ProblemMaps
from conediff.solver.batch_solver import BatchSolver


class CompiledProblem:
    """The maps of a problem, and what is made from them; pickled as the maps alone.

    Parameters
    ----------
    maps : ProblemMaps

    Attributes
    ----------
    told : set of str
        The causes of a `DegeneracyWarning` that the user of the layer has been told.
    """

    def __init__(self, maps: ProblemMaps) -> None:
        self.maps = maps
        self.solver = BatchSolver(maps.structure)
        self.observability = MapsObservability(maps)
        self.told: set[str] = set()

    def __reduce__(self) -> tuple[type[CompiledProblem], tuple[Any, ...]]:
        return CompiledProblem, (self.maps,)

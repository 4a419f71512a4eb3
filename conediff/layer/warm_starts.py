"""Where a layer's solves begin."""

from __future__ import annotations

import threading
from typing import Any

from conediff.layer.arguments import Arguments
from conediff.layer.solution import LayerSolution
from conediff.program import Point, Structure


class WarmStarts:
    """The last solutions of a layer, for each batch shape; copied and pickled without them."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], Point] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[WarmStarts], tuple[()]]:
        return WarmStarts, ()

    def keep(self, batch: tuple[int, ...], point: Point) -> None:
        """Remember (x, y, s)."""
        with self._lock:
            self._last[batch] = point

    def start(self, given: Any, arguments: Arguments, structure: Structure) -> Point | None:
        """Return (x, y, s) to start from: None, the last solution for this batch shape, or the one given.

        Parameters
        ----------
        given : bool, LayerSolution or None
            The setting ``warm_start``.
        arguments : Arguments
        structure : Structure

        Raises
        ------
        TypeError, ValueError
            If what is given is no solution, or not one of this structure and batch shape.
        """
        if given is None or given is False:
            return None
        if given is True:
            with self._lock:
                return self._last.get(arguments.batch)
        if not isinstance(given, LayerSolution):
            raise TypeError(
                "warm_start must be True, False, or a solution that this layer's solve returned, "
                f"got {given!r:.80}"
            )
        point = given.result.point
        if point.x.shape != (arguments.count, structure.n) or point.y.shape[1] != structure.m:
            raise ValueError(
                f"warm_start has batch shape {given.batch}, but this call has {arguments.batch}; with "
                "warm_start=True the layer keeps its last solution for each batch shape"
            )
        return point

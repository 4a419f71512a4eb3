"""Equilibration and a cone scaling, one after the other, as one change of variables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.program import Array, ConeData, Point, Products
from conediff.scaling.cone_scaling import ConeScaling
from conediff.scaling.equilibration import Equilibration


@dataclass(frozen=True)
class ComposedScaling:
    """First the equilibration, then a cone scaling of the equilibrated programs; the methods are theirs.

    Parameters
    ----------
    equilibration : Equilibration
    cone_scaling : ConeScaling
    """

    equilibration: Equilibration
    cone_scaling: ConeScaling

    def take(self, index: NDArray[np.intp] | slice) -> ComposedScaling:
        return ComposedScaling(self.equilibration.take(index), self.cone_scaling.take(index))

    def unscale_point(self, point: Point) -> Point:
        return self.equilibration.unscale_point(self.cone_scaling.unscale_point(point))

    def scale_point(self, point: Point) -> Point:
        return self.cone_scaling.scale_point(self.equilibration.scale_point(point))

    def scale_products(self, change: Products) -> Products:
        return self.cone_scaling.scale_products(self.equilibration.scale_products(change))

    def scale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        return self.cone_scaling.scale_cotangent(*self.equilibration.scale_cotangent(gx, gy, gs))

    def unscale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        return self.equilibration.unscale_multipliers(*self.cone_scaling.unscale_multipliers(r1, r2))

    def unscale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        return self.equilibration.unscale_cotangent(*self.cone_scaling.unscale_cotangent(gx, gy, gs))

    def scale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        return self.cone_scaling.scale_multipliers(*self.equilibration.scale_multipliers(r1, r2))

    def unscale_data_cotangent(self, g: ConeData) -> ConeData:
        return self.equilibration.unscale_data_cotangent(self.cone_scaling.unscale_data_cotangent(g))

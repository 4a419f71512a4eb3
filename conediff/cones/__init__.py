"""Cones: projection onto their duals, its derivative, and their scaling.

One file for each cone; ``base`` has the protocol, ``registry`` the table of all cones, ``product`` the
product of the cones of a program.
"""

from conediff.cones.automorphism import Automorphism
from conediff.cones.base import (
    Array,
    BlockDerivative,
    Cone,
    ConeDefaults,
    ConeDerivative,
    DerivativeDefaults,
    DiagonalDerivative,
    LowRankPart,
    Projection,
)
from conediff.cones.box import Box
from conediff.cones.exponential import DualExponential, Exponential
from conediff.cones.linear import NonNegative, Zero
from conediff.cones.power import Power
from conediff.cones.product import ProductCone, ProductDerivative, ProductProjection
from conediff.cones.psd import PSD, ComplexPSD
from conediff.cones.second_order import SecondOrder
from conediff.cones.svec import complex_smat, complex_svec, smat, svec

__all__ = [
    "PSD",
    "Array",
    "Automorphism",
    "BlockDerivative",
    "Box",
    "ComplexPSD",
    "Cone",
    "ConeDefaults",
    "ConeDerivative",
    "DerivativeDefaults",
    "DiagonalDerivative",
    "DualExponential",
    "Exponential",
    "LowRankPart",
    "NonNegative",
    "Power",
    "ProductCone",
    "ProductDerivative",
    "ProductProjection",
    "Projection",
    "SecondOrder",
    "Zero",
    "complex_smat",
    "complex_svec",
    "smat",
    "svec",
]

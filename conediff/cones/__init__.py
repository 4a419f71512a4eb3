"""Cones: projection onto their duals, and its derivative."""

from conediff.cones.base import Array, BlockDerivative, Cone, ConeDerivative, DiagonalDerivative, Projection
from conediff.cones.box import Box
from conediff.cones.exponential import DualExponential, Exponential
from conediff.cones.linear import NonNegative, Zero
from conediff.cones.power import Power
from conediff.cones.product import ProductCone, ProductDerivative, ProductProjection
from conediff.cones.psd import PSD, ComplexPSD, complex_smat, complex_svec, smat, svec
from conediff.cones.second_order import SecondOrder

__all__ = [
    "PSD",
    "Array",
    "BlockDerivative",
    "Box",
    "ComplexPSD",
    "Cone",
    "ConeDerivative",
    "DiagonalDerivative",
    "DualExponential",
    "Exponential",
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

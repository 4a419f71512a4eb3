"""Cone programs: one as a user states it, and stacks of programs that share sizes, sparsity and cones.

In the order of use: ``pattern`` (sparsity of one matrix), ``data`` (what a stack shares, and its
numbers), ``cone_program`` (one validated program), ``tangent`` (perturbations and cotangents of the data).
"""

from conediff.program.cone_program import ConeProgram
from conediff.program.data import ConeData, Point, Structure
from conediff.program.pattern import Array, Indices, Pattern, union
from conediff.program.tangent import Products, outer, products, scaled

__all__ = [
    "Array",
    "ConeData",
    "ConeProgram",
    "Indices",
    "Pattern",
    "Point",
    "Products",
    "Structure",
    "outer",
    "products",
    "scaled",
    "union",
]

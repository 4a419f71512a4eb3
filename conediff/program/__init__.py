"""Cone programs: a single validated program, and stacks of programs with equal sizes, sparsity and cones.

The modules in the order of use: ``pattern`` (sparsity of one matrix), ``data`` (the structure that the
programs of a stack share, and their numbers), ``cone_program`` (one validated program), ``tangent`` (products
with tangents of the data, cotangents of the data as outer products), ``constants``.
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

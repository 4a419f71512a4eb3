"""Tuned numbers of layers."""

# Tolerances of declared attributes, relative to the largest entry of a value (no unit).

# Of signs and bounds. Larger values accept weights that make a problem unbounded; smaller ones refuse numbers
# to which rounding in double precision gave the wrong sign.
SIGN_TOLERANCE = 1e-7
# Of definiteness and of whole numbers. It is above the step of finite differences at matrices without full
# rank: torch.autograd.gradcheck moves one entry by 1e-6.
DEFINITE_TOLERANCE = 1e-5
# Of what the maps do not read: the antisymmetric part of a symmetric matrix, entries outside of a pattern,
# the real part of an imaginary number. It refuses values that were not meant to have the structure.
STRUCTURE_TOLERANCE = 1e-3

"""The KKT conditions and the linear algebra of their reduced system K.

In the order of use: ``residual`` (how far a point is from a solution), ``matrix`` (K's sparsity
and values), ``ldl`` (factorisation), ``low_rank`` (large second-order cones), ``factor`` (solves with K),
``system`` (all of these for one structure); ``embedding`` and ``least_squares`` where K is singular.
"""

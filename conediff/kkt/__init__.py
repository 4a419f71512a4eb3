"""The KKT conditions and the linear algebra of their reduced system K.

In the order of use: ``residual`` (how far a point is from a solution), ``matrix`` (K's sparsity
and values), ``ldl`` (factorisation), ``low_rank`` (large second-order cones), ``factor`` (solves with K),
``system`` (all of these for one structure); where K is singular ``embedding`` (M), ``damped`` (its
factorisation) and ``least_squares`` (LSQR, dense).
"""

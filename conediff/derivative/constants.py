"""Tuned numbers of the derivative."""

# Distance of v to a kink of the projection, relative to the largest entry of v, x, b and c in the program, up
# to which the derivative asks whether the errors of the solution leave open on which side it is. Larger: it
# asks more often, which takes two solves with K; smaller: kinks of less accurate solutions are missed.
KINK = 1e-9
# The same relative to the largest entry of v in a cone of several rows. Larger than KINK, because a cone
# scaling magnifies the errors of the smaller one of y and s.
NEAR = 1e-6
# Multiples of the estimated errors of y and s that count as zero. The estimate has the right size, and data
# are rounded before they arrive; two digits beyond are left for both. Larger: more warnings where the
# derivative exists; smaller: kinks may be missed where the errors are larger than estimated.
ERRORS = 100.0
# Random signs in the estimate: with two, both are below the error by ERRORS once in 10^4 times.
SIGNS = 2
# Distance, in units of KINK or of the errors, by which v is moved to either side of a kink in order to
# compare the derivatives there.
SIDE = 10
# Pairs of random points whose projections add up to a direction into a cone. More: nearer to its middle.
INWARDS = 16
# An entry below this, relative to the largest, counts as zero: where K is singular, answers have errors of
# this size.
NEGLIGIBLE = 1e-6
# Relative error of a solution, estimated by a Newton step, above which the user is told.
SOLUTION_ERROR = 1e-6
# A residual below this, relative to the smallest singular value, explains no such error, and no step is
# taken.
NEGLIGIBLE_ERROR = 1e-8
# A factorisation made at another point is used if S has changed by no more than this since.
NEARBY = 1e-5
# A cone scaling is used where the solution satisfies the scaled KKT conditions up to this relative residual.
# The forward pass reaches 1e-10 in a scaling that helps; a solution found without the scaling typically has
# 1e-6 in it.
SCALED_RESIDUAL = 1e-8

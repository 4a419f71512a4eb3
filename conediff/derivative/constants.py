"""Tuned numbers of the derivative."""

# Distance of v to a kink of the projection, relative to the largest entry of v, below which the solution map
# counts as not differentiable: solutions are known to about 1e-10.
KINK = 1e-9
# Distance, in units of KINK, by which v is moved to either side of a kink in order to compare the derivatives
# there.
SIDE = 10
# An entry below this, relative to the largest, counts as zero: where K is singular, answers have errors of
# this size.
NEGLIGIBLE = 1e-6
# K, scaled to rows of about one, counts as singular if its smallest singular value is below this.
SINGULAR = 1e-11
# A factorisation made at another point is used if S has changed by no more than this since.
NEARBY = 1e-5
# A cone scaling is used where the solution satisfies the scaled KKT conditions up to this relative residual.
# The forward pass reaches 1e-10 in a scaling that helps; a solution found without the scaling typically has
# 1e-6 in it.
SCALED_RESIDUAL = 1e-8

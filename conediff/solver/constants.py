"""Tuned numbers of the forward pass. SCS's settings for each stage stand in the table of `schedule`.

Residuals are relative KKT residuals, as `kkt.residual.Evaluation.judged` has them.
"""

# Rows and programs in one pile of SCS, at most. Larger piles leave the cache, and end when the hardest
# program does.
PILE_ROWS = 2048
PILE_COUNT = 64
# SCS uses QDLDL below this many nonzeros of A and P, and above it while there are at most so many nonzeros
# per row; otherwise SCS's default, a blocked parallel factorisation where SCS was built with one. Workspaces
# are kept only below the first number.
QDLDL_NONZEROS, QDLDL_NONZEROS_PER_ROW = 200_000, 10

# Operations of one factorisation in Clarabel, from its PSD cones, above which Clarabel comes last. 5e9 are
# one dense PSD cone of order 69, and take about a second.
CLARABEL_WORK = 5e9
# Factorisations of one solve by Clarabel, and operations of one iteration of SCS for a PSD cone of order k,
# over k^3: an eigendecomposition. With large PSD cones SCS first has as many iterations as take the time of
# Clarabel, within these limits. At order 50 both solve in about the time of 3,000 iterations.
CLARABEL_FACTORISATIONS, SCS_EIG_WORK, LARGE_ITERATIONS = 15, 25.0, (1000, 10_000)
# Operations of one iteration of SCS for each entry of A and P; the ratio of a Newton step's to them from
# which SCS goes to 1e-8 before the first step; and the steps that Newton's method takes otherwise.
# Logistic regression with 200 features: ratio 150, measured 146; with 50: 35, measured 42.
SCS_STEP_WORK, WIDE_RATIO, NEWTON_STEPS = 4, 100.0, 7
# Entries of a PSD cone that Clarabel's chordal decomposition fills in for each that the data have.
CLARABEL_FILL = 4
# Rows of half-lines are divided by b before Clarabel where b is more than this many times the row of A.
DISTANT_BOUND = 1e6
# Products of cones whose transformations for Clarabel are kept.
CLARABEL_CACHED_CONES = 32
# Bounds of a box of this size and more are infinite, as in SCS (its MAX_BOX_VAL).
INFINITE_BOUND = 1e15
# A certificate of infeasibility or unboundedness holds up to the first residual relative to its own terms,
# and up to the second relative to b'y or c'x: it then excludes all points whose entries add up to less than
# 1e6, at data of about one. SCS's default (eps_infeas) is 1e-7, Clarabel's 1e-8, each in its own scaling.
CERTIFICATE, CERTIFICATE_GAIN = 1e-7, 1e-6

# Entries of K in a stack below which it is not cut into parts, and in one part, at most: 196,608 entries are
# 1.5 MB, which stay in cache. In smaller parts threads wait for each other, because NumPy takes the
# interpreter lock between any two operations.
ENTRIES_WITHOUT_PARTS = 1 << 17
ENTRIES_OF_A_PART = 3 << 16

# SCS's `scale` is chosen within these bounds, and moves by at most this factor from what the data suggest.
SCALE_RANGE = (1 / 16, 16.0)
SCALE_STEP = 8.0
# In a cone scaling the residual to reach is at most this: residuals are relative to the largest row, and a
# cone scaling is used where rows are so uneven that digits of the small ones are at stake.
SCALED_TOLERANCE = 1e-13
# A solution with a residual between the tolerance and this is inaccurate, and returned with a warning; above
# it the solve has failed.
INACCURATE = 1e-5

# Newton's method with full steps stops after this many steps that reduce the best residual by less than 30 %,
# or after this many steps in all.
FULL_REDUCTION, FULL_POOR_STEPS, FULL_MAX_STEPS = 0.7, 3, 10
# In a cone scaling they begin at a solution; after a residual above this they stop, because the scaling has
# made K singular.
LOST = 1e-2
# From Clarabel's points: the regularisation of K for full steps, and the share of the tolerance that they aim
# at, so that one is taken from nearly every point. From Clarabel's points at 1e-14 etamacro takes three steps
# to 3e-12 with 1e-5, and does not get below 1e-3 with 1e-9 to 1e-6; truss5 three to 1e-13 with 1e-7 to 1e-4.
INTERIOR_REGULARISATION, INTERIOR_TOLERANCE = 1e-5, 1e-2
# Damped steps: the lengths tried one after the other; the decrease of the residual that a step of length one
# has to bring (shorter ones in proportion); and the number of steps in all.
DAMPED_LENGTHS = (1.0, 0.5, 0.2, 0.05)
DAMPED_DECREASE = 1e-2
DAMPED_MAX_STEPS = 30
# A damped step that is refused at every length is repeated with this many times the regularisation, up to a
# limit.
DAMPED_REGULARISATION_FACTOR = 1e4
DAMPED_MAX_REGULARISATION = 1e-1
# Refinement of the linear solve for a Newton direction: relative residual and steps.
DIRECTION_RESIDUAL, DIRECTION_REFINEMENTS = 1e-10, 3
# Relative residual of directions where GMRES solves with K, and steps at most: two thirds of GMRES's steps
# are saved, and no more of Newton's needed from points of 1e-6 and better, which take one or two.
INEXACT_RESIDUAL, INEXACT_MAX_STEPS = 1e-3, 3

"""Tuned numbers of the linear algebra.

Relative residuals are 2-norms relative to that of the right-hand side; singular values are those of K with
rows and columns scaled to largest entries of about one.
"""

# Static regularisation of the scaled K: large enough that no pivot vanishes for any ordering (Vanderbei
# 1995), small enough that two or three steps of iterative refinement remove it.
REGULARISATION = 1e-9
# Where a pivot still has the wrong sign, multiples of the regularisation that are added to it, one after the
# other.
REGULARISATION_FACTORS = (1e2, 1e4, 1e6)
# Entries of S A and D - I below this are rounding errors: D has entries of about one.
ROUNDING = 1e-14

# Rows and programs in one block-diagonal factorisation, at most. Larger ones exceed the cache and take longer
# per row.
PILE_ROWS = 2048
PILE_COUNT = 64

# Relative residual of the first solve above which the signs of the pivots are checked. The check costs more
# than a factorisation of a small K, because QDLDL copies its factor for it.
SUSPICIOUS_RESIDUAL = 1e-3
# Smallest singular value, estimated by one step of inverse iteration, below which two more steps are taken:
# the first one overestimates by as much as the probe is orthogonal to its vector.
ESTIMATED_SINGULAR_VALUE = 1e-3
# The same below which the pivots are checked. Pivots of the size of the regularisation leave the factor
# accurate to 1e-7 only, so that a zero may appear as 1e-5.
SUSPICIOUS_SINGULAR_VALUE = 1e-4
# K, scaled to rows of about one, counts as singular if its smallest singular value is below this, or below
# this multiple of the relative KKT residual of the solution (up to a limit): D at the solution is known no
# better.
SINGULAR, SINGULAR_RESIDUALS, SINGULAR_LIMIT = 1e-11, 10.0, 1e-8
# Singular values below this are split off where K is solved with (`kkt.deflation`), with a regularisation
# that is the root of rounding: small enough for refinement to contract by 1e-2 and better, large enough
# that no pivot drowns in rounding of 1e-16 / regularisation.
DEFLATED, DEFLATION_REGULARISATION = 1e-5, 1e-7
# Steps that purify their vectors, at most: each divides what lies in the direction of a singular value σ by
# σ / DEFLATION_REGULARISATION.
PURIFICATIONS = 6
# Steps of refinement of a solve, at most.
DEFLATION_STEPS = 15
# Work of splitting vectors off one program, at most: their number times the entries of K and, for calls of
# NumPy, 20 times its rows. 2e7 take half a second. Programs with more go to the damped factorisation of M,
# whose work does not depend on the number; with turned cones, which M does not know, later.
DEFLATION_WORK, DEFLATION_WORK_TURNED, DEFLATION_ROWS = 2e7, 1e9, 20
# Vectors that may be split off in any case.
DEFLATION_LEAST = 4
# A relative residual up to this counts as solved.
SOLVED = 1e-10
# Relative residual that GMRES aims at for an answer, and for the first estimate of the smallest singular
# value: the latter is below the share that one direction has of a random vector.
GMRES_FINE, GMRES_COARSE = 1e-12, 1e-5
# Krylov vectors of GMRES, at most.
KRYLOV = 200

# Below this the size of the terms of a residual counts as this: data that are all zero have residual zero.
RESIDUAL_FLOOR = 1e-10
# Singular values of M below this, relative to the largest, count as zero: solutions are known to about 1e-10.
RANK_TOLERANCE = 1e-11
# Tolerance of LSQR and LSMR, on the relative residual and on its relative gradient.
LEAST_SQUARES_TOLERANCE = 1e-13
# Iterations of LSQR and LSMR per unknown, and at least in all, before they stop with a warning.
ITERATIONS_PER_UNKNOWN, LEAST_ITERATIONS = 20, 1000

# Rows of a cone from which on S A is computed by one matrix product for each cone, from a dense copy of its
# rows of A; below, for all cones of a group together, entry by entry of A. Larger: more time per entry in
# cones with full rows of A; smaller: more calls of NumPy for many small cones.
DENSE_DIM = 12
# Columns of A in a large cone, relative to its rows, and multiplications of eliminating its rows, at most,
# for K to be formed in the eigenbasis of D there. QDLDL makes 2e9 multiplications a second; GMRES, which
# serves otherwise, is faster on sparse cones with as many columns as rows (nearest correlation matrices).
TURNED_COLUMNS, TURNED_WORK = 1 / 3, 3e9
# Numbers in U, for the whole stack, up to which the low-rank correction is used (32 MiB; K₀⁻¹ U is as large).
# Larger problems use GMRES.
LOW_RANK_NUMBERS = 1 << 22
# Columns of U, two for each eigenvector of each cone, up to which it is used: a factor takes one solve with
# K₀ for every column. Larger: factors cost more; smaller: more programs use GMRES.
LOW_RANK_COLUMNS = 64

# Share of the largest term of a product below which the product counts as this share: rounding errors are
# about 1e-16 of the largest term, so that a residual relative to a product that cancels could not become
# small. With 1e-4 a residual of 1e-10 is 1e-14 of the largest term.
CANCELLED_SHARE = 1e-4
# A row of the residual counts, with the first share of what it is violated by relative to its own terms, if
# that is more than the second. With these a point at the tolerance of 1e-10 violates no row by more than
# 1e-7, and one at 1e-5, beyond which a solve has failed, none by more than 1 %. Of 900 quadratic programs
# with entries over twelve orders of magnitude 60 had a row beyond 1e-7, up to 1.0, when rows did not count.
ROW_SHARE, ROW_TOLERANCE = 1e-3, 1e-7
# Rows whose terms are below this share of the largest row's are judged relative to this share: times
# ROW_TOLERANCE it is rounding of that row, from which nothing protects a row of zeros.
NEGLIGIBLE_ROW = 1e-9
# Damping δ of the least-squares factorisation, relative to M's largest entry. Larger: singular values of M
# below it take a step of conjugate gradients each; smaller: rounding, of 1e-16 / δ. On the singular programs
# of Maros-Meszaros and netlib 1e-6 takes 3 to 40 steps, 1e-5 up to hundreds, and 1e-7 loses digits where M is
# well scaled (`pytest -m slow tests/laws/test_derivative_damped.py`).
DAMPING = 1e-6
# Where the factorised matrix is only near M, rounding in a gradient is amplified by 1 / δ².
DAMPING_NEARBY = 1e-4
# Rounds of symmetric equilibration before it is factorised. Each takes a square root off the ratio of row
# norms; more than five change nothing.
EQUILIBRATION_ROUNDS = 5
# Steps of iterative refinement of every solve with it; one leaves errors of 1e-11, two of rounding.
REFINEMENTS = 2
# Steps of preconditioned conjugate gradients, at most, and how often they begin, at most, from the residual
# in extended precision; most programs begin twice.
CG_ITERATIONS, CG_RESTARTS = 200, 5
# Steps without halving the best level after which they end: before it counts as solved, and after. Fewer give
# up on badly scaled programs (QISRAEL with 15); more chase rounding.
CG_PATIENCE = (50, 10)
# Predicted entries of the factor of the damped system above which M is not factorised: it would take more
# than 160 MB and some seconds.
DAMPED_FILL = 1e7
# Rows and columns with more entries than this multiple of the root of their number are dense: they are
# ordered last, as in AMD (Amestoy, Davis, Duff 2004).
DENSE_ROOT = 10.0
# Work of LSQR for method "auto", in multiplications, at most: one to two seconds. One step costs the products
# with M and M', and of Python as much as STEP_WORK multiplications.
LSQR_WORK, STEP_WORK = 1e9, 1e6
# But at most this multiple of the largest entry of b and c: iterates that diverge along a certificate of
# infeasibility have terms of any size that cancel, and are no solutions.
CANCELLED_LIMIT = 100.0

"""Names of diffcp, cvxpylayers and the solvers that they call, and their counterparts in conediff."""

# diffcp's mode -> conediff's method. diffcp's "lsqr" defines the derivative by LSQR; "auto" computes the same
# derivative by a direct solve, and where the reduced system is singular by preconditioned least squares.
METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}

# Tolerances of other solvers. conediff's solutions meet them, because Newton's method refines SCS's solution.
OTHER_TOLERANCES = frozenset({"abstol", "reltol", "feastol", "tol_gap_abs", "tol_gap_rel", "tol_feas"})
# Tolerances at which ECOS reports an inaccurate solution: without effect in conediff.
INACCURATE_TOLERANCES = frozenset({"abstol_inacc", "reltol_inacc", "feastol_inacc"})
# Settings that choose a build of SCS: without effect, because the results of all builds agree.
SCS_BUILDS = frozenset({"use_indirect", "gpu", "mkl"})
# Iteration limits of interior-point methods: a few dozen, where SCS needs thousands of iterations.
ITERATION_LIMITS = frozenset({"max_iters", "max_iter"})

# Range of the relative residual that another solver's tolerance is translated to. Refined solutions are never
# worse than 1e-10, and rounding errors prevent much less than 1e-12.
SMALLEST_TOLERANCE = 1e-12
LARGEST_TOLERANCE = 1e-10

# conediff's status -> SCS's ``status_val``.
STATUS_VALUES = {"solved": 1, "inaccurate": 2, "unbounded": -1, "infeasible": -2, "failed": -4}
# conediff's status -> SCS's, and what diffcp calls it for ECOS and Clarabel.
SCS_STATUSES = {
    "solved": "solved",
    "inaccurate": "solved (inaccurate - reached max_iters)",
    "unbounded": "unbounded",
    "infeasible": "infeasible",
    "failed": "failure",
}
INTERIOR_POINT_STATUSES = {
    "solved": "Solved",
    "inaccurate": "Solved/Inaccurate",
    "unbounded": "Unbounded",
    "infeasible": "Infeasible",
    "failed": "Failure",
}
# Statuses of programs that have a solution and a derivative.
WITH_SOLUTION = ("solved", "inaccurate")

# The version of diffcp whose interface compat has; cvxpy asks for 1.0.15 or newer.
DIFFCP_VERSION = "1.1.9"

"""Names of diffcp, cvxpylayers and the solvers that they call, and their counterparts in conediff."""

# diffcp's mode -> conediff's method. diffcp's "lsqr" defines the derivative by LSQR; "auto" computes the same
# derivative by solves with the reduced system, whether it is singular or not.
METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}

# Tolerances of other solvers. conediff's solutions meet them, because Newton's method refines SCS's solution.
OTHER_TOLERANCES = frozenset({"abstol", "reltol", "feastol", "tol_gap_abs", "tol_gap_rel", "tol_feas"})
# Tolerances at which ECOS reports an inaccurate solution: without effect in conediff.
INACCURATE_TOLERANCES = frozenset({"abstol_inacc", "reltol_inacc", "feastol_inacc"})
# Clarabel's other settings, of Clarabel 0.11: without effect, because conediff's result does not depend on
# the path on which Clarabel, or SCS behind it, came near the solution.
CLARABEL_TUNING = frozenset(
    {
        "chordal_decomposition_compact",
        "chordal_decomposition_complete_dual",
        "chordal_decomposition_enable",
        "chordal_decomposition_merge_method",
        "direct_kkt_solver",
        "direct_solve_method",
        "dynamic_regularization_delta",
        "dynamic_regularization_enable",
        "dynamic_regularization_eps",
        "equilibrate_enable",
        "equilibrate_max_iter",
        "equilibrate_max_scaling",
        "equilibrate_min_scaling",
        "input_sparse_dropzeros",
        "iterative_refinement_abstol",
        "iterative_refinement_enable",
        "iterative_refinement_max_iter",
        "iterative_refinement_reltol",
        "iterative_refinement_stop_ratio",
        "linesearch_backtrack_step",
        "max_step_fraction",
        "max_threads",
        "min_switch_step_length",
        "min_terminate_step_length",
        "pardiso_iparm",
        "pardiso_verbose",
        "presolve_enable",
        "reduced_tol_feas",
        "reduced_tol_gap_abs",
        "reduced_tol_gap_rel",
        "reduced_tol_infeas_abs",
        "reduced_tol_infeas_rel",
        "reduced_tol_ktratio",
        "static_regularization_constant",
        "static_regularization_enable",
        "static_regularization_proportional",
    }
)
# Settings of ECOS alone, without effect: refinement steps within ECOS.
ECOS_TUNING = frozenset({"nitref"})
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

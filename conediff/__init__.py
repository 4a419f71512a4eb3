"""conediff: exact derivatives of convex optimisation problems."""

from conediff.api.solution import Solution, Solutions
from conediff.api.solve import solve, solve_batch
from conediff.errors import (
    AccuracyWarning,
    ConediffError,
    ConediffWarning,
    ConeError,
    DegeneracyWarning,
    DPPError,
    ExecutorError,
    ParameterError,
    ProblemError,
    SolverError,
)
from conediff.layer import CvxpyLayer, LayerSolution, OptLayer, ProblemDerivative, differentiate
from conediff.program import ConeProgram

__version__ = "0.1.0"

__all__ = [
    "AccuracyWarning",
    "ConeError",
    "ConeProgram",
    "ConediffError",
    "ConediffWarning",
    "CvxpyLayer",
    "DPPError",
    "DegeneracyWarning",
    "ExecutorError",
    "LayerSolution",
    "OptLayer",
    "ParameterError",
    "ProblemDerivative",
    "ProblemError",
    "Solution",
    "Solutions",
    "SolverError",
    "differentiate",
    "solve",
    "solve_batch",
]


def __dir__() -> list[str]:
    """List the public names, without the packages that the code is made of."""
    return sorted([*__all__, "__version__", "compat"])

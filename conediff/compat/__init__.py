"""Interfaces of other libraries: ``import conediff.compat as diffcp`` runs programs written for diffcp.

``diffcp`` has diffcp's functions. They use ``arguments`` (reads diffcp's arguments), ``solving`` (solves
lists of programs), ``reports`` (says how it went, in a solver's words) and ``lpgd`` (derivatives as
differences); ``cones`` is diffcp's module of that name. ``replacement`` puts all this in diffcp's place
for programs that import diffcp, cvxpy among them. ``cvxpylayers`` translates cvxpylayers' arguments.
``constants`` has the names that several of these modules translate.
"""

from conediff.compat import cones
from conediff.compat.cones import EXP, POS, PSD, SOC, ZERO
from conediff.compat.constants import DIFFCP_VERSION as __version__
from conediff.compat.diffcp import (
    solve_and_derivative,
    solve_and_derivative_batch,
    solve_and_derivative_internal,
    solve_internal,
    solve_only,
    solve_only_batch,
)
from conediff.compat.replacement import install
from conediff.errors import SolverError

__all__ = [
    "EXP",
    "POS",
    "PSD",
    "SOC",
    "ZERO",
    "SolverError",
    "__version__",
    "cones",
    "install",
    "solve_and_derivative",
    "solve_and_derivative_batch",
    "solve_and_derivative_internal",
    "solve_internal",
    "solve_only",
    "solve_only_batch",
]

"""Interfaces of other libraries: ``import conediff.compat as diffcp`` runs programs written for diffcp.

``diffcp`` has diffcp's functions. They use ``arguments`` (reads diffcp's arguments), ``solving`` (solves
lists of programs) and ``lpgd`` (derivatives as differences). ``cvxpylayers`` translates cvxpylayers'
arguments. ``constants`` has the names that several of these modules translate.
"""

from conediff.compat.diffcp import (
    EXP,
    POS,
    PSD,
    SOC,
    ZERO,
    solve_and_derivative,
    solve_and_derivative_batch,
    solve_and_derivative_internal,
    solve_only,
    solve_only_batch,
)
from conediff.errors import SolverError

__all__ = [
    "EXP",
    "POS",
    "PSD",
    "SOC",
    "ZERO",
    "SolverError",
    "solve_and_derivative",
    "solve_and_derivative_batch",
    "solve_and_derivative_internal",
    "solve_only",
    "solve_only_batch",
]

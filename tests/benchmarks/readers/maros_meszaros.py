"""Convex quadratic programs as MATLAB files: minimise x'Px/2 + q'x + r subject to l <= Ax <= u.

These are the files of the Maros-Meszaros collection that OSQP's benchmarks use. Source of the collection:
Maros, Meszaros (1999), A repository of convex quadratic programming problems.
"""

from __future__ import annotations

from pathlib import Path

import scipy.io
import scipy.sparse as sp

from tests.benchmarks.readers.problem import ConeRows, FormatError, Problem


def read_mat(path: Path) -> Problem:
    """Read a .mat file with P, q, A, l, u and, optionally, r.

    Parameters
    ----------
    path : Path
        P may hold both triangles or the upper one; l and u of 1e19 or more are no bounds.

    Raises
    ------
    FormatError
        If an array is missing, or P is neither symmetric nor upper triangular.
    """
    raw = scipy.io.loadmat(path)
    missing = [name for name in ("P", "q", "A", "l", "u") if name not in raw]
    if missing:
        raise FormatError(f"{path.name} has no array {', '.join(missing)}")
    q, lower, upper = (raw[name].ravel().astype(float) for name in ("q", "l", "u"))
    P = sp.csc_array(raw["P"]).astype(float)
    if abs(P - P.T).max() > 0:
        if sp.tril(P, k=-1).nnz:
            raise FormatError(f"{path.name}: P is neither symmetric nor upper triangular")
        P = P + sp.triu(P, k=1).T
    rows = ConeRows(q.size)
    rows.add_interval(sp.csr_array(raw["A"]), lower, upper)
    return Problem(rows.program(q, P), offset=float(raw["r"].item()) if "r" in raw else 0.0)

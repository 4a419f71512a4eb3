"""Linear and convex quadratic programs in MPS, read by HiGHS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tests.benchmarks.readers.problem import ConeRows, FormatError, Problem


def read_mps(path: Path) -> Problem:
    """Read an MPS file; HiGHS decides what its sections mean.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FormatError
        If HiGHS cannot read the file, or variables are integer.
    ImportError
        If highspy is not installed (extra ``bench``).
    """
    import highspy

    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    if highs.readModel(str(path)) == highspy.HighsStatus.kError:
        raise FormatError(f"HiGHS cannot read {path.name}")
    model = highs.getModel()
    lp = model.lp_
    if any(kind != highspy.HighsVarType.kContinuous for kind in lp.integrality_):
        raise FormatError(f"{path.name} has integer variables")
    c = np.array(lp.col_cost_, dtype=float)
    A, P = _compressed(lp.a_matrix_, lp.num_row_, lp.num_col_), _hessian(model.hessian_, lp.num_col_)
    maximise = lp.sense_ == highspy.ObjSense.kMaximize
    sign = -1.0 if maximise else 1.0
    rows = ConeRows(lp.num_col_)
    rows.add_interval(A, np.array(lp.row_lower_), np.array(lp.row_upper_))
    rows.add_interval(sp.eye_array(lp.num_col_), np.array(lp.col_lower_), np.array(lp.col_upper_))
    return Problem(rows.program(sign * c, sign * P), offset=float(lp.offset_), maximise=maximise)


def _compressed(matrix: Any, rows: int, columns: int) -> sp.csr_array:
    import highspy

    kind = sp.csc_array if matrix.format_ == highspy.MatrixFormat.kColwise else sp.csr_array
    arrays = (np.array(matrix.value_), np.array(matrix.index_), np.array(matrix.start_))
    return sp.csr_array(kind(arrays, shape=(rows, columns)))


def _hessian(hessian: Any, n: int) -> sp.csc_array:
    """Return Q of x'Qx/2 with both triangles; HiGHS may store the lower one."""
    import highspy

    if not hessian.dim_:
        return sp.csc_array((n, n))
    arrays = (np.array(hessian.value_), np.array(hessian.index_), np.array(hessian.start_))
    Q = sp.csc_array(arrays, shape=(n, n))
    if hessian.format_ == highspy.HessianFormat.kTriangular:
        Q = sp.csc_array(Q + sp.tril(Q, k=-1).T)
    return Q

"""From cvxpy's tensors to the patterns of P and A, and affine maps to the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.cones import ProductCone
from conediff.layer.maps import AffineBlock
from conediff.program import Array, Pattern, Structure, union


def build_data_maps(
    program: Any, to_reduced: sp.csr_array
) -> tuple[Structure, dict[str, Any], tuple[AffineBlock, ...]]:
    """Turn cvxpy's tensors into maps from the features to the values of P, A, b, c and d.

    Each row of a tensor belongs to an entry of a matrix, in column-major order; a tensor's last column is the
    constant term. cvxpy's A has one more column, which is SCS's b: Ax + b in K becomes (-A)x + s = b.

    Parameters
    ----------
    program : cvxpy's ParamConeProg
    to_reduced : csr_array, shape (entries of the parameter vector, features)
        The map that `build_parameter_map` returns.

    Returns
    -------
    structure : Structure
    cones : dict
        SCS's dictionary of the cones.
    blocks : tuple of AffineBlock
        The maps to P, A, b, c and d.
    """
    n = int(program.x.size)
    m = int(program.A.shape[0]) // (n + 1)
    entry, parameter, value = _nonzero_coordinates(program.A)
    matrix = entry < n * m
    A, A_block = _build_sparse_map(m, n, entry[matrix], parameter[matrix], -value[matrix], to_reduced)
    b_block = _build_dense_map(m, entry[~matrix] - n * m, parameter[~matrix], value[~matrix], to_reduced)
    entry, parameter, value = _nonzero_coordinates(program.q)
    linear = entry < n
    c_block = _build_dense_map(n, entry[linear], parameter[linear], value[linear], to_reduced)
    d_block = _build_dense_map(1, entry[~linear] - n, parameter[~linear], value[~linear], to_reduced)
    if program.P is None:
        entry = parameter = np.zeros(0, dtype=np.int64)
        value = np.zeros(0)
    else:
        entry, parameter, value = _nonzero_coordinates(program.P)
    # cvxpy gives one triangle of P or both; only the symmetric part of P enters the objective.
    mirrored = np.concatenate([entry, entry % n * n + entry // n])
    P, P_block = _build_sparse_map(n, n, mirrored, np.tile(parameter, 2), np.tile(value / 2, 2), to_reduced)
    dims = program.cone_dims
    cones = {
        "z": int(dims.zero),
        "l": int(dims.nonneg),
        "q": [int(k) for k in dims.soc],
        "s": [int(k) for k in dims.psd],
        "ep": int(dims.exp),
        "p": [float(a) for a in dims.p3d],
    }
    structure = Structure(P, A, ProductCone.from_dict(cones))
    return structure, cones, (P_block, A_block, b_block, c_block, d_block)


def _nonzero_coordinates(tensor: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return the rows, columns and values of a tensor's nonzero entries."""
    coo = tensor.tocoo()
    nonzero = coo.data != 0
    rows, columns = coo.row[nonzero].astype(np.int64), coo.col[nonzero].astype(np.int64)
    return rows, columns, coo.data[nonzero].astype(np.float64)


def _build_dense_map(
    count: int, entry: NDArray[np.int64], parameter: NDArray[np.int64], value: Array, to_reduced: sp.csr_array
) -> AffineBlock:
    """Return the affine map from the features to all ``count`` entries of a vector."""
    total, features = to_reduced.shape
    fixed = parameter == total
    constant = np.bincount(entry[fixed], weights=value[fixed], minlength=count).astype(np.float64)
    moving = ~fixed
    tensor = sp.csr_array((value[moving], (entry[moving], parameter[moving])), shape=(count, total))
    matrix = sp.csc_array(tensor @ to_reduced) if tensor.nnz else sp.csc_array((count, features))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return AffineBlock(matrix, constant)


def _build_sparse_map(
    rows: int,
    columns: int,
    entry: NDArray[np.int64],
    parameter: NDArray[np.int64],
    value: Array,
    to_reduced: sp.csr_array,
) -> tuple[Pattern, AffineBlock]:
    """Return the pattern of a matrix, and the affine map from the features to the values stored in it."""
    height = max(rows, 1)
    pattern, (position,) = union((rows, columns), [(entry % height, entry // height)])
    block = _build_dense_map(pattern.nnz, position, parameter, value, to_reduced)
    # Drop entries whose terms cancel to zero.
    kept = (np.bincount(block.matrix.indices, minlength=pattern.nnz) > 0) | (block.constant != 0)
    if not kept.all():
        block = AffineBlock(sp.csc_array(block.matrix.tocsr()[kept]), block.constant[kept])
        pattern, _ = union((rows, columns), [(pattern.indices[kept], pattern.columns[kept])])
    return pattern, block

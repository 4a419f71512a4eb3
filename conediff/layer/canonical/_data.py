"""From cvxpy's tensors to the patterns of P and A, and affine maps to the data in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.cones import ProductCone
from conediff.layer.maps import AffineBlock
from conediff.program import Array, Pattern, Structure


def data_maps(program: Any, fold: sp.csr_array) -> tuple[Structure, dict[str, Any], tuple[AffineBlock, ...]]:
    """Turn cvxpy's tensors into maps from the features to the values of P, A, b, c and d.

    A row of a tensor is an entry of a matrix in column-major order, and its last column is constant.
    Of A the last column is the offset, which SCS calls b: Ax + b in K becomes (-A)x + s = b.
    """
    n = int(program.x.size)
    m = int(program.A.shape[0]) // (n + 1)
    entry, parameter, value = _coordinates(program.A)
    matrix = entry < n * m
    A, A_block = _sparse_map(m, n, entry[matrix], parameter[matrix], -value[matrix], fold)
    b_block = _dense_map(m, entry[~matrix] - n * m, parameter[~matrix], value[~matrix], fold)
    entry, parameter, value = _coordinates(program.q)
    linear = entry < n
    c_block = _dense_map(n, entry[linear], parameter[linear], value[linear], fold)
    d_block = _dense_map(1, entry[~linear] - n, parameter[~linear], value[~linear], fold)
    if program.P is None:
        entry = parameter = np.zeros(0, dtype=np.int64)
        value = np.zeros(0)
    else:
        entry, parameter, value = _coordinates(program.P)
    # Only the symmetric part of P matters; cvxpy gives it in either triangle, or in both.
    mirrored = np.concatenate([entry, entry % n * n + entry // n])
    P, P_block = _sparse_map(n, n, mirrored, np.tile(parameter, 2), np.tile(value / 2, 2), fold)
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


def _coordinates(tensor: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return the rows, columns and values of a tensor's nonzero entries."""
    coo = tensor.tocoo()
    nonzero = coo.data != 0
    rows, columns = coo.row[nonzero].astype(np.int64), coo.col[nonzero].astype(np.int64)
    return rows, columns, coo.data[nonzero].astype(np.float64)


def _dense_map(
    count: int, entry: NDArray[np.int64], parameter: NDArray[np.int64], value: Array, fold: sp.csr_array
) -> AffineBlock:
    """Return the affine map from the features to all ``count`` entries of a vector."""
    total, features = fold.shape
    fixed = parameter == total
    constant = np.bincount(entry[fixed], weights=value[fixed], minlength=count).astype(np.float64)
    moving = ~fixed
    tensor = sp.csr_array((value[moving], (entry[moving], parameter[moving])), shape=(count, total))
    matrix = sp.csc_array(tensor @ fold) if tensor.nnz else sp.csc_array((count, features))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return AffineBlock(matrix, constant)


def _sparse_map(
    rows: int,
    columns: int,
    entry: NDArray[np.int64],
    parameter: NDArray[np.int64],
    value: Array,
    fold: sp.csr_array,
) -> tuple[Pattern, AffineBlock]:
    """Return the pattern of a matrix, and the affine map from the features to the values stored in it."""
    stored, position = np.unique(entry, return_inverse=True)
    block = _dense_map(stored.size, position.ravel(), parameter, value, fold)
    # What cancelled is no entry of the matrix.
    kept = (np.bincount(block.matrix.indices, minlength=stored.size) > 0) | (block.constant != 0)
    if not kept.all():
        block = AffineBlock(sp.csc_array(block.matrix.tocsr()[kept]), block.constant[kept])
        stored = stored[kept]
    indptr = np.searchsorted(stored, np.arange(columns + 1, dtype=np.int64) * rows).astype(np.int32)
    indices = (stored % max(rows, 1)).astype(np.int32)
    return Pattern((rows, columns), indptr, indices), block

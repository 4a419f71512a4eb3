"""A cone program as a user states it: frozen, validated, in SCS's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from conediff.cones import ProductCone
from conediff.errors import ParameterError
from conediff.program.data import ConeData, Structure
from conediff.program.pattern import Array, Pattern


class ConeProgram:
    r"""A convex program with a quadratic objective over a product of cones.

    .. math::
        \text{minimise } \tfrac12 x^\top P x + c^\top x \quad
        \text{subject to } A x + s = b,\; s \in K.

    The data are copied, and never change afterwards.

    Parameters
    ----------
    A : sparse matrix or array, shape (m, n)
        Rows in SCS's order: zero cone, nonnegative, box, second-order, PSD, complex PSD, exponential, dual
        exponential, power. PSD blocks are the lower triangle in column-major order, off-diagonals times
        the root of 2.
    b : array, shape (m,)
    c : array, shape (n,)
    cones : mapping
        SCS's: ``z``, ``l``, ``bl``, ``bu``, ``q``, ``s``, ``cs``, ``ep``, ``ed``, ``p`` (a negative exponent
        is a dual power cone).
    P : sparse matrix or array, shape (n, n), optional
        Symmetric positive semidefinite, both triangles.

    Raises
    ------
    ConeError
        If the cones are malformed.
    ParameterError
        If an entry of the data is NaN or infinite.
    TypeError
        If data are complex, or the cones are no mapping.
    ValueError
        If shapes do not fit, or P is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> program = ConeProgram(np.array([[1.0], [-1.0]]), [1.0, 0.0], [-1.0], {"l": 2})
    >>> program.n, program.m
    (1, 2)
    """

    def __init__(
        self,
        A: Any,
        b: ArrayLike,
        c: ArrayLike,
        cones: Mapping[str, Any],
        P: Any = None,
    ) -> None:
        self._A = _matrix("A", A)
        self._b, self._c = _vector("b", b), _vector("c", c)
        m, n = self._A.shape
        if self._b.size != m or self._c.size != n:
            raise ValueError(
                f"A has shape ({m}, {n}), so b must have {m} entries and c must have {n}; "
                f"they have {self._b.size} and {self._c.size}"
            )
        if n == 0:
            raise ValueError("the program has no variables: A has no columns")
        self._P = _symmetric(P, n) if P is not None else sp.csc_array((n, n))
        if not isinstance(cones, Mapping):
            raise TypeError(f"cones must be a mapping such as {{'z': 1, 'l': 2}}, got {cones!r}")
        cone = ProductCone.from_dict(cones)
        if cone.dim != m:
            raise ValueError(
                f"the cones have {cone.dim} rows in all, but A has {m}; of {dict(cones)} a PSD cone of order "
                "k counts k (k + 1) / 2, an exponential or power cone three, a box its bounds and one more"
            )
        self.structure = Structure(Pattern.of(self._P), Pattern.of(self._A), cone)

    @property
    def A(self) -> sp.csc_array:
        """Constraint matrix, shape (m, n); a copy."""
        return self._A.copy()

    @property
    def P(self) -> sp.csc_array:
        """Quadratic term of the objective, shape (n, n), both triangles; a copy."""
        return self._P.copy()

    @property
    def b(self) -> Array:
        """Right-hand side, shape (m,); a copy."""
        return self._b.copy()

    @property
    def c(self) -> Array:
        """Linear term of the objective, shape (n,); a copy."""
        return self._c.copy()

    @property
    def cones(self) -> dict[str, Any]:
        """The cones as SCS's dictionary."""
        return self.structure.cone.to_dict()

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.structure.n

    @property
    def m(self) -> int:
        """Number of rows."""
        return self.structure.m

    @cached_property
    def data(self) -> ConeData:
        """The numbers, as a stack of one program."""
        return ConeData(self._P.data[None], self._A.data[None], self._b[None], self._c[None])

    def __repr__(self) -> str:
        return f"ConeProgram(n={self.n}, m={self.m}, cones={self.cones})"


def _matrix(name: str, value: Any) -> sp.csc_array:
    """Copy into sorted CSC; explicit zeros stay, for they belong to the pattern."""
    if np.dtype(getattr(value, "dtype", float)).kind == "c":
        raise TypeError(
            f"{name} is complex; write the program in real and imaginary parts, or use CvxpyLayer"
        )
    if not sp.issparse(value):
        value = _numbers(name, value)
        if value.ndim != 2:
            raise ValueError(f"{name} must be a matrix, but has shape {value.shape}")
    matrix = sp.csc_array(value, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if bad.size:
        column = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        index = (int(matrix.indices[bad[0]]), column)
        raise ParameterError(f"{name} is not finite: {name}[{index[0]}, {index[1]}] is {matrix.data[bad[0]]}")
    return matrix


def _vector(name: str, value: ArrayLike) -> Array:
    if np.iscomplexobj(value):
        raise TypeError(
            f"{name} is complex; write the program in real and imaginary parts, or use CvxpyLayer"
        )
    vector = _numbers(name, value).copy()
    if vector.ndim != 1:
        raise ValueError(f"{name} must be a vector, but has shape {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise ParameterError(f"{name} is not finite: {name}[{bad[0]}] is {vector[bad[0]]}")
    return vector


def _numbers(name: str, value: Any) -> Array:
    try:
        if value is None:
            raise TypeError
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of numbers, or a sparse matrix, got {value!r:.80}"
        ) from error


def _symmetric(value: Any, n: int) -> sp.csc_array:
    """Check that P is symmetric, and give it a symmetric pattern."""
    P = _matrix("P", value)
    if P.shape != (n, n):
        raise ValueError(f"P must have shape ({n}, {n}), but has {P.shape}")
    if P.nnz and abs(P - P.T).max() > 1e-12 * abs(P).max():
        raise ValueError(
            "P must be symmetric, with both triangles given; from an upper triangle: U + U.T - diag"
        )
    entries, mirrored = P.tocoo(), P.T.tocoo()
    # Zeros at the mirrored places: a stored zero in one triangle then has a partner in the other.
    rows, columns = np.concatenate([entries.row, mirrored.row]), np.concatenate([entries.col, mirrored.col])
    values = np.concatenate([entries.data, np.zeros(P.nnz)])
    return sp.csc_array((values, (rows, columns)), shape=(n, n))

"""One cone program: immutable, validated, in SCS's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from conediff.cones import ProductCone
from conediff.errors import ParameterError
from conediff.program.constants import SYMMETRY_TOLERANCE
from conediff.program.data import ConeData, Structure
from conediff.program.pattern import Array, Pattern, union


class ConeProgram:
    r"""A convex program with a quadratic objective over a product of cones.

    .. math::
        \text{minimise } \tfrac12 x^\top P x + c^\top x \quad
        \text{subject to } A x + s = b,\; s \in K.

    The data are copied and cannot be changed afterwards.

    Parameters
    ----------
    A : sparse matrix or array, shape (m, n)
        Rows in SCS's order: zero cone, nonnegative, box, second-order, PSD, complex PSD, exponential, dual
        exponential, power. A PSD block is the lower triangle in column-major order, its off-diagonal entries
        multiplied by the square root of 2.
    b : array, shape (m,)
    c : array, shape (n,)
    cones : mapping
        SCS's dictionary, with keys ``z``, ``l``, ``bl``, ``bu``, ``q``, ``s``, ``cs``, ``ep``, ``ed``, ``p``
        (a negative exponent means the dual power cone).
    P : sparse matrix or array, shape (n, n), optional
        Symmetric positive semidefinite, with both triangles; zero by default.

    Raises
    ------
    ConeError
        If the cones are malformed.
    ParameterError
        If an entry of the data is NaN or infinite.
    TypeError
        If data are complex or not numbers, or ``cones`` is not a mapping.
    ValueError
        If shapes do not fit, A has no columns, or P is not symmetric.

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
                f"the cones have {cone.dim} rows in all, but A has {m}; the cones are {dict(cones)}. A PSD "
                "cone of order k has k (k + 1) / 2 rows, an exponential or power cone has 3, a box has one "
                "row more than it has bounds"
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
        """SCS's dictionary of the cones."""
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
        """The numbers of the program as a stack of one."""
        return ConeData(self._P.data[None], self._A.data[None], self._b[None], self._c[None])

    def __repr__(self) -> str:
        return f"ConeProgram(n={self.n}, m={self.m}, cones={self.cones})"


def _matrix(name: str, value: Any) -> sp.csc_array:
    """Return a float64 copy in CSC with sorted, unique indices; stored zeros stay part of the pattern."""
    if sp.issparse(value):
        value = real(name, value)
    else:
        value = numbers(name, value)
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
    """Return a float64 copy; raise if it is complex, not one-dimensional or not finite."""
    vector = numbers(name, value).copy()
    if vector.ndim != 1:
        raise ValueError(f"{name} must be a vector, but has shape {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise ParameterError(f"{name} is not finite: {name}[{bad[0]}] is {vector[bad[0]]}")
    return vector


def numbers(name: str, value: Any) -> Array:
    """Return the value as a float64 array; raise TypeError if it is None, complex or not numeric."""
    try:
        if value is None:
            raise TypeError
        array = np.asarray(value)
        if not np.iscomplexobj(array):
            return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"{name} must be an array of numbers, or a sparse matrix, got {value!r:.80}"
        ) from error
    raise _complex(name)


def real(name: str, matrix: Any) -> Any:
    """Return a sparse matrix; raise TypeError if it is complex."""
    if np.iscomplexobj(matrix):
        raise _complex(name)
    return matrix


def _complex(name: str) -> TypeError:
    return TypeError(f"{name} is complex; write the program in real and imaginary parts, or use CvxpyLayer")


def _symmetric(value: Any, n: int) -> sp.csc_array:
    """Return P with a symmetric pattern; raise ValueError if its values are not symmetric.

    The partner of an entry that is stored in one triangle only is a stored zero.
    """
    P = _matrix("P", value)
    if P.shape != (n, n):
        raise ValueError(f"P must have shape ({n}, {n}), but has {P.shape}")
    if P.nnz and abs(P - P.T).max() > SYMMETRY_TOLERANCE * abs(P).max():
        raise ValueError(
            "P must be symmetric, with both triangles; from an upper triangle U compute U + U.T - diag(U)"
        )
    entries = P.tocoo()
    pattern, (at, _) = union((n, n), [(entries.row, entries.col), (entries.col, entries.row)])
    values = np.zeros(pattern.nnz)
    values[at] += P.data
    return pattern.matrix(values)

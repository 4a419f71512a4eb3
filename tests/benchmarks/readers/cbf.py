r"""Conic programs in the Conic Benchmark Format as cone programs.

A file states scalar variables x and PSD variables X_j, and

.. math:: \min \langle F_j, X_j \rangle + a^\top x + b \quad \text{subject to} \quad
          \langle F_{ij}, X_j \rangle + a_i^\top x + b_i \in K, \quad \sum_j x_j H_{ij} + D_i \succeq 0,
          \quad x \in K', \; X_j \succeq 0.

The variables of the program are x, then svec(X_j). How cones become SCS's, rows before and after:

- ``L=``, ``L+``, ``L-``: zero, s >= 0, -s >= 0; ``F``: no row. ``Q``: the same cone.
- ``QR``, 2 u v >= \|w\|^2 with u, v >= 0: ((u + v)/√2, (u - v)/√2, w) in a second-order cone. The map is
  orthogonal, its own inverse.
- ``EXP``, (z, y, x) with z >= y exp(x/y): (x, y, z) in SCS's exponential cone; ``EXP*``: the same order,
  in its dual.
- ``@k:POW`` and ``@k:POW*`` with two exponents and three rows: SCS's power cone with a_1 / (a_1 + a_2), and
  its dual. Other power cones are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tests.benchmarks.readers.cbf_file import CBFFile, Cones, parse
from tests.benchmarks.readers.problem import (
    Array,
    ConeRows,
    FormatError,
    Problem,
    svec_factor,
    svec_position,
)


def read_cbf(path: Path) -> Problem:
    """Read a .cbf or .cbf.gz file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FormatError
        If a section or a cone is unknown, or is one that conediff does not solve.
    """
    file = parse(path)
    try:
        return _problem(file)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from error
    except (IndexError, ValueError) as error:
        raise FormatError(f"{path.name}: an index is out of range: {error}") from error


def _problem(file: CBFFile) -> Problem:
    columns = _Columns(file)
    rows = ConeRows(columns.n)
    scalar = sp.eye_array(columns.scalars, columns.n, format="csr")
    _add_cones(rows, file.variables, scalar, np.zeros(columns.scalars), file)
    total = sum(size for _, size in file.constraints)
    _add_cones(rows, file.constraints, columns.constraints(total), _vector(file, "BCOORD", total), file)
    for j, order in enumerate(file.psd_variables):
        first, height = columns.first[j], order * (order + 1) // 2
        rows.add("s", -sp.eye_array(height, columns.n, k=first), np.zeros(height), order)
    for i, order in enumerate(file.psd_constraints):
        _add_psd_constraint(rows, file, i, order)
    sign = -1.0 if file.maximise else 1.0
    return Problem(rows.program(sign * columns.objective()), offset=file.offset, maximise=file.maximise)


class _Columns:
    """Columns of the program: scalar variables, then svec of every PSD variable."""

    def __init__(self, file: CBFFile) -> None:
        self._file = file
        self.scalars = sum(size for _, size in file.variables)
        heights = [order * (order + 1) // 2 for order in file.psd_variables]
        self.first = self.scalars + np.cumsum([0, *heights])
        self.n = int(self.first[-1])

    def objective(self) -> Array:
        """Return c, shape (n,)."""
        c = _vector(self._file, "OBJACOORD", self.n)
        block, row, column, values = _split(self._file.entries("OBJFCOORD"))
        np.add.at(c, self._svec(block, row, column), values * svec_factor(row, column))
        return c

    def constraints(self, total: int) -> sp.csr_array:
        """Return the coefficients of the scalar constraints, shape (total, n)."""
        i, j, values = _split(self._file.entries("ACOORD"))
        p, block, row, column, more = _split(self._file.entries("FCOORD"))
        at = np.r_[i, p], np.r_[j, self._svec(block, row, column)]
        data = np.r_[values, more * svec_factor(row, column)]
        return sp.csr_array(sp.coo_array((data, at), shape=(total, self.n)))

    def _svec(self, block: Any, row: Any, column: Any) -> Any:
        order = np.array(self._file.psd_variables, dtype=int)[block]
        return self.first[block] + svec_position(order, row, column)


def _split(entries: Array) -> tuple[Any, ...]:
    """Return columns of indices as integers, and the values."""
    return (*entries[:, :-1].T.astype(int), entries[:, -1])


def _vector(file: CBFFile, section: str, size: int) -> Array:
    vector = np.zeros(size)
    i, values = _split(file.entries(section))
    np.add.at(vector, i, values)
    return vector


def _add_psd_constraint(rows: ConeRows, file: CBFFile, i: int, order: int) -> None:
    height = order * (order + 1) // 2
    variable, *matrix, values = _of_constraint(file.entries("HCOORD"), i)
    at = svec_position(order, *matrix), variable
    H = sp.coo_array((values * svec_factor(*matrix), at), shape=(height, rows.n))
    *matrix, values = _of_constraint(file.entries("DCOORD"), i)
    D = np.zeros(height)
    np.add.at(D, svec_position(order, *matrix), values * svec_factor(*matrix))
    rows.add("s", -H, D, order)


def _of_constraint(entries: Array, i: int) -> tuple[Any, ...]:
    """Return what belongs to one PSD constraint, without the constraint's index."""
    return _split(entries[entries[:, 0] == i, 1:])


def _add_cones(rows: ConeRows, cones: Cones, G: sp.csr_array, h: Array, file: CBFFile) -> None:
    """Add G x + h in these cones, one after the other."""
    start = 0
    for name, size in cones:
        stop = start + size
        kind, T, parameter = _scs_cone(name, size, file)
        if kind:
            rows.add(kind, -(T @ G[start:stop]), T @ h[start:stop], parameter)
        start = stop


def _scs_cone(name: str, size: int, file: CBFFile) -> tuple[str, Any, Any]:
    """Return the kind of SCS's cone, the matrix that maps rows to its rows, and its parameter."""
    same = sp.eye_array(size, format="csr")
    if name in ("F", "L=", "L+", "L-"):
        return {"F": "", "L=": "z"}.get(name, "l"), -same if name == "L-" else same, None
    if name == "Q":
        return "q", same, size
    if name == "QR" and size >= 2:
        return "q", _rotation(size), size
    if name in ("EXP", "EXP*") and size == 3:
        return "ep" if name == "EXP" else "ed", sp.csr_array(np.eye(3)[::-1]), None
    if name.startswith("@"):
        return "p", same, _exponent(name, size, file)
    raise FormatError(f"the cone {name} of {size} rows is not supported")


def _rotation(size: int) -> sp.csr_array:
    half = np.sqrt(0.5)
    return sp.csr_array(sp.block_diag([np.array([[half, half], [half, -half]]), sp.eye_array(size - 2)]))


def _exponent(name: str, size: int, file: CBFFile) -> float:
    """Return a of SCS's power cone; negative for the dual cone."""
    number, _, kind = name[1:].partition(":")
    declared = file.exponents.get({"POW": "POWCONES", "POW*": "POW*CONES"}.get(kind, ""), [])
    if not number.isdigit() or int(number) >= len(declared):
        raise FormatError(f"the cone {name} is not declared")
    exponents = declared[int(number)]
    if exponents.size != 2 or size != 3:
        raise FormatError(
            f"the cone {name} has {exponents.size} exponents and {size} rows; power cones with two exponents "
            "and three rows are supported"
        )
    a = float(exponents[0] / exponents.sum())
    return a if kind == "POW" else -a

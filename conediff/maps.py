"""From parameters to the numbers of a cone program, and from its solution to the user's arrays.

Everything here is a sparse linear or affine map, with log and exp at the ends for geometric programs.
The maps are found once, by `conediff.canonical`; this module applies them to whole stacks, forward
and transposed, and knows nothing of cvxpy, so that a saved layer can be rebuilt from plain arrays.

A stack of values has shape (R, *shape) where R is B or 1; one row serves the whole stack of B programs.
The cotangent of a complex z is dL/dRe(z) + i dL/dIm(z): the gradient for the real inner product
Re(conj(g) dz), as PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from conediff.cones import ProductCone
from conediff.structure import Array, ConeData, Pattern, Structure

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """What is declared of a parameter, and the features that it contributes.

    The features are its entries in C order: the values (or real parts), then the imaginary parts if
    ``complex``, then the logarithms if ``log``.

    Parameters
    ----------
    name : str
    shape : tuple of int
    complex, log : bool
        ``log`` marks a parameter whose logarithm enters (geometric programs); its value may enter
        as well, as an exponent.
    attributes : tuple of str
        The attributes that were declared: nonneg, pos, PSD, symmetric, integer, ...
    lower, upper : array broadcastable to shape, or None
        Bounds declared of the values.
    pattern : int array or None
        Flat positions, in C order, of the entries that may be nonzero; None where all may.
    """

    name: str
    shape: tuple[int, ...]
    complex: bool = False
    log: bool = False
    attributes: tuple[str, ...] = ()
    lower: Array | None = None
    upper: Array | None = None
    pattern: NDArray[np.intp] | None = None

    @cached_property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def parts(self) -> int:
        """Features of an entry: its value, and its imaginary part or logarithm."""
        return 1 + self.complex + self.log

    @cached_property
    def width(self) -> int:
        """Number of features."""
        return self.size * self.parts

    def _flat(self, value: ArrayLike) -> NDArray[Any]:
        array = np.asarray(value, dtype=np.complex128 if self.complex else np.float64)
        return array.reshape(len(array), self.size)

    def features(self, value: ArrayLike) -> Array:
        """Return the features of a stack of values, shape (R, width)."""
        flat = self._flat(value)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, np.log(flat)], axis=1) if self.log else flat

    def tangent(self, value: ArrayLike, tangent: ArrayLike) -> Array:
        """Return the change of the features, shape (R, width), for a change of the value."""
        flat = self._flat(tangent)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, flat / self._flat(value)], axis=1) if self.log else flat

    def cotangent(self, value: ArrayLike, g: Array) -> NDArray[Any]:
        """Return the cotangent of the value, shape (R, *shape), for one of the features, (R, width)."""
        flat: NDArray[Any] = g[:, : self.size]
        if self.complex:
            flat = flat + 1j * g[:, self.size :]
        elif self.log:
            flat = flat + g[:, self.size :] / self._flat(value)
        return flat.reshape((len(g), *self.shape))


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One of the arrays that the user asked for, as a linear function of x or of y.

    Parameters
    ----------
    name : str
    kind : {"primal", "dual", "objective"}
        Whether it is read from x, from y, or is the optimal value.
    shape : tuple of int
    complex : bool
    exp : bool
        Whether the exponential is taken (variables of geometric programs).
    matrix : csr_array, shape (entries, n or m), or None for the objective
        Rows are the entries in C order; if ``complex``, the imaginary parts follow the real ones.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    complex: bool = False
    exp: bool = False
    matrix: sp.csr_array | None = None

    @cached_property
    def _transpose(self) -> sp.csc_array:
        assert self.matrix is not None
        return self.matrix.T

    def _linear(self, v: Array) -> NDArray[Any]:
        assert self.matrix is not None, "the objective is not linear in the solution"
        flat: NDArray[Any] = np.ascontiguousarray((self.matrix @ v.T).T)
        if self.complex:
            half = flat.shape[1] // 2
            flat = flat[:, :half] + 1j * flat[:, half:]
        return flat.reshape((len(v), *self.shape))

    def value(self, v: Array) -> NDArray[Any]:
        """Return the output, shape (B, *shape), of x or y, shape (B, n or m)."""
        linear = self._linear(v)
        return np.exp(linear) if self.exp else linear

    def tangent(self, v: Array, dv: Array) -> NDArray[Any]:
        """Return the change of the output for a change of x or y."""
        linear = self._linear(dv)
        return self.value(v) * linear if self.exp else linear

    def cotangent(self, v: Array, g: ArrayLike) -> Array:
        """Return the cotangent of x or y, shape (B, n or m), for one of the output, (B, *shape)."""
        assert self.matrix is not None, "the objective is not linear in the solution"
        flat = np.asarray(g).reshape(len(v), self.matrix.shape[0] // (1 + self.complex))
        if self.complex:
            flat = np.concatenate([flat.real, flat.imag], axis=1)
        elif self.exp:
            flat = flat * self.value(v).reshape(flat.shape)
        return np.ascontiguousarray((self._transpose @ flat.T).T, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class AffineBlock:
    """One part of the data (P, A, b, c or d) as ``matrix @ features + constant``.

    Parameters
    ----------
    matrix : csc_array, shape (entries, features)
        By columns, so that those of some parameters are a cheap slice.
    constant : array, shape (entries,)
    """

    matrix: sp.csc_array
    constant: Array

    def touched_by(self, span: Span) -> bool:
        """Whether any of these features reaches this part."""
        return bool(self.matrix.indptr[span[0]] < self.matrix.indptr[span[1]])

    def columns(self, spans: Sequence[Span]) -> sp.csc_array:
        """Return the columns of these spans side by side; of all spans, the matrix itself."""
        runs: list[Span] = []
        for start, stop in spans:
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((start, stop))
        if runs == [(0, self.matrix.shape[1])]:
            return self.matrix
        return sp.csc_array(sp.hstack([self._run(start, stop) for start, stop in runs], format="csc"))

    def _run(self, start: int, stop: int) -> sp.csc_array:
        indptr = self.matrix.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return sp.csc_array(
            (self.matrix.data[inside], self.matrix.indices[inside], indptr - indptr[0]),
            shape=(self.matrix.shape[0], stop - start),
        )


@dataclass(frozen=True, eq=False)
class ProblemMaps:
    """Everything about a convex problem that does not depend on the values of its parameters.

    Parameters
    ----------
    structure : Structure
        Of the cone program.
    cones : dict
        The same cones as SCS's dictionary, from which ``structure.cone`` was made.
    parameters : tuple of ParameterSpec
        In the user's order; their features stand one after the other in the same order.
    outputs : tuple of OutputSpec
        In the user's order.
    blocks : tuple of AffineBlock
        Of P, A, b, c, and the constant d of the objective (one entry).
    sense : {1.0, -1.0}
        -1 where the user maximises: the cone program minimises the negative.
    log_objective : bool
        Whether the cone program's objective is the logarithm of the user's (geometric programs).
    """

    structure: Structure
    cones: Mapping[str, Any]
    parameters: tuple[ParameterSpec, ...]
    outputs: tuple[OutputSpec, ...]
    blocks: tuple[AffineBlock, ...]
    sense: float = 1.0
    log_objective: bool = False
    # Slices of the blocks for the groups of parameters that were met, so that each is cut once.
    _slices: dict[tuple[int, ...], tuple[sp.csc_array, sp.csr_array]] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where each parameter's features begin and end."""
        ends = np.cumsum([0] + [spec.width for spec in self.parameters]).tolist()
        return tuple(pairwise(ends))

    @cached_property
    def touches(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each parameter reaches each of P, A, b, c, d: ``touches[block][parameter]``."""
        return tuple(tuple(block.touched_by(span) for span in self.spans) for block in self.blocks)

    # ------------------------------------------------------------------ parameters -> data

    def evaluate(self, values: Sequence[ArrayLike]) -> tuple[ConeData, Array]:
        """Return the data of the stack of programs.

        Parameters
        ----------
        values : sequence of arrays, each of shape (B, *shape) or (1, *shape)

        Returns
        -------
        data : ConeData
            A part that depends on no parameter, or only on those with one row, has one row.
        d : array, shape (B,) or (1,)
            Constant of the objective.
        """
        features = [spec.features(v) for spec, v in zip(self.parameters, values, strict=True)]
        parts = [block.constant[None] + self._linear(k, features) for k, block in enumerate(self.blocks)]
        return ConeData(*parts[:4]), parts[4][:, 0]

    def push_forward(
        self, values: Sequence[ArrayLike], tangents: Sequence[ArrayLike | None]
    ) -> tuple[ConeData, Array]:
        """Return the change of the data for a change of the parameters; None stands for no change."""
        features = [
            None if dv is None else spec.tangent(v, dv)
            for spec, v, dv in zip(self.parameters, values, tangents, strict=True)
        ]
        parts = [self._linear(k, features) for k in range(len(self.blocks))]
        return ConeData(*parts[:4]), parts[4][:, 0]

    def _linear(self, k: int, features: Sequence[Array | None]) -> Array:
        """Return block k's matrix times the features: one product for each number of rows (1 or B)."""
        total = np.zeros((1, len(self.blocks[k].constant)))
        for members in self._by_rows(k, features):
            stacked = [f for j in members if (f := features[j]) is not None]
            joined = stacked[0] if len(stacked) == 1 else np.concatenate(stacked, axis=1)
            total = total + np.ascontiguousarray((self._slice(k, members)[0] @ joined.T).T)
        return total

    def _slice(self, k: int, members: Sequence[int]) -> tuple[sp.csc_array, sp.csr_array]:
        """Return block k's columns for these parameters, and their transpose."""
        key = (k, *members)
        if key not in self._slices:
            columns = self.blocks[k].columns([self.spans[j] for j in members])
            self._slices[key] = (columns, columns.T)
        return self._slices[key]

    def _by_rows(self, k: int, arrays: Sequence[Array | None]) -> list[list[int]]:
        """Group the parameters that reach block k by the number of rows they have."""
        groups: dict[bool, list[int]] = {}
        for j, array in enumerate(arrays):
            if array is not None and self.touches[k][j]:
                groups.setdefault(len(array) == 1, []).append(j)
        return list(groups.values())

    def pull_back(
        self,
        values: Sequence[ArrayLike],
        data: ConeData,
        d: Array | None = None,
        needed: Sequence[bool] | None = None,
    ) -> list[NDArray[Any] | None]:
        """Apply the transpose of `push_forward`.

        Parameters
        ----------
        values : sequence of arrays, each of shape (B, *shape) or (1, *shape)
        data : ConeData
            Cotangents of P, A, b and c, in their patterns.
        d : array, shape (B,), optional
            Cotangent of the objective's constant; None means zero.
        needed : sequence of bool, optional
            Which parameters' cotangents are wanted; all by default.

        Returns
        -------
        list of arrays, or None where not needed
            Of the values' shapes: the cotangent of a value with one row is summed over the stack.
        """
        wanted = [True] * len(self.parameters) if needed is None else needed
        sums: list[Array | None] = [
            np.zeros((len(np.asarray(v)), spec.width)) if want else None
            for spec, v, want in zip(self.parameters, values, wanted, strict=True)
        ]
        gs = (data.P, data.A, data.b, data.c, None if d is None else d[:, None])
        for k, g in enumerate(gs):
            if g is not None:
                self._accumulate(k, g, sums)
        return [
            None if total is None else spec.cotangent(v, total)
            for spec, v, total in zip(self.parameters, values, sums, strict=True)
        ]

    def _accumulate(self, k: int, g: Array, sums: Sequence[Array | None]) -> None:
        """Add block k's share, matrix' g, to the cotangents of the features."""
        for members in self._by_rows(k, sums):
            first = sums[members[0]]
            assert first is not None
            # Summing before the product spares B - 1 products with what may be a large matrix.
            rows = g.sum(axis=0, keepdims=True) if len(first) == 1 else g
            joined = (self._slice(k, members)[1] @ rows.T).T
            start = 0
            for j in members:
                total = sums[j]
                assert total is not None
                total += joined[:, start : start + total.shape[1]]
                start += total.shape[1]

    # ------------------------------------------------------------------ solution -> outputs

    def recover(self, x: Array, y: Array, value: Array | None = None) -> list[NDArray[Any]]:
        """Return the outputs, each of shape (B, *shape).

        Parameters
        ----------
        x : array, shape (B, n)
        y : array, shape (B, m)
        value : array, shape (B,), optional
            The optimal value, see `value`; required where the objective is one of the outputs.
        """
        return [_given(value) if o.kind == "objective" else o.value(_source(o, x, y)) for o in self.outputs]

    def recover_tangent(
        self, x: Array, y: Array, dx: Array, dy: Array, dvalue: Array | None = None
    ) -> list[NDArray[Any]]:
        """Return the change of the outputs; ``dvalue`` is that of the optimal value, see `value_tangent`."""
        return [
            _given(dvalue) if o.kind == "objective" else o.tangent(_source(o, x, y), _source(o, dx, dy))
            for o in self.outputs
        ]

    def recover_cotangent(
        self, x: Array, y: Array, cotangents: Sequence[ArrayLike | None]
    ) -> tuple[Array, Array, Array | None]:
        """Apply the transpose of `recover_tangent`.

        Returns
        -------
        gx : array, shape (B, n)
        gy : array, shape (B, m)
        gvalue : array, shape (B,), or None
            Cotangent of the optimal value, for `value_cotangent`; None where there is none.
        """
        gx, gy = np.zeros(x.shape), np.zeros(y.shape)
        gvalue: Array | None = None
        for output, g in zip(self.outputs, cotangents, strict=True):
            if g is None:
                continue
            if output.kind == "objective":
                gvalue = np.asarray(g, dtype=np.float64) + (0.0 if gvalue is None else gvalue)
            elif output.kind == "primal":
                gx += output.cotangent(x, g)
            else:
                gy += output.cotangent(y, g)
        return gx, gy, gvalue

    # ------------------------------------------------------------------ optimal value

    def value(self, data: ConeData, d: Array, x: Array) -> Array:
        """Return the user's objective at x, shape (B,): constant, sign and exponential included."""
        P = self.structure.P
        quadratic = np.sum(data.P * x[:, P.indices] * x[:, P.columns], axis=1)
        value: Array = self.sense * (0.5 * quadratic + np.sum(data.c * x, axis=1) + d)
        return np.exp(value) if self.log_objective else value

    def _slope(self, data: ConeData, d: Array, x: Array) -> Array | float:
        """Return the derivative of the user's objective with respect to the cone program's."""
        return self.sense * self.value(data, d, x) if self.log_objective else self.sense

    def value_tangent(
        self, data: ConeData, d: Array, x: Array, y: Array, tangent: ConeData, dd: Array
    ) -> Array:
        r"""Return the change of the optimal value, shape (B,), for a change of the data.

        .. math:: dv = \tfrac12 x'dP\,x + x'dc + dd + y'dA\,x - y'db

        Notes
        -----
        The envelope theorem: to first order the Lagrangian does not see dx and dy, so no solve is needed.
        """
        P, A = self.structure.P, self.structure.A
        change: Array = (
            0.5 * np.sum(tangent.P * x[:, P.indices] * x[:, P.columns], axis=1)
            + np.sum(tangent.A * y[:, A.indices] * x[:, A.columns], axis=1)
            + np.sum(tangent.c * x, axis=1)
            - np.sum(tangent.b * y, axis=1)
            + dd
        )
        return self._slope(data, d, x) * change

    def value_cotangent(
        self, data: ConeData, d: Array, x: Array, y: Array, g: Array
    ) -> tuple[ConeData, Array]:
        """Apply the transpose of `value_tangent`: cotangents of the data and of d for g, shape (B,)."""
        P, A = self.structure.P, self.structure.A
        weight = np.asarray(self._slope(data, d, x) * g)
        w = weight[:, None]
        gP = 0.5 * w * x[:, P.indices] * x[:, P.columns]
        return ConeData(gP, w * y[:, A.indices] * x[:, A.columns], -w * y, w * x), weight

    # ------------------------------------------------------------------ plain arrays

    def to_arrays(self) -> dict[str, Any]:
        """Return the maps as a flat dictionary of arrays, and ``"header"``, which JSON can hold."""
        header = {
            "n": self.structure.n,
            "m": self.structure.m,
            "cones": {key: np.asarray(rows).tolist() for key, rows in self.cones.items()},
            "parameters": [_plain(spec, ("name", "complex", "log")) for spec in self.parameters],
            "outputs": [_plain(spec, ("name", "kind", "complex", "exp")) for spec in self.outputs],
            "sense": float(self.sense),
            "log_objective": bool(self.log_objective),
        }
        arrays: dict[str, Any] = {"header": header}
        for key, pattern in (("P", self.structure.P), ("A", self.structure.A)):
            arrays[f"pattern.{key}.indptr"] = pattern.indptr
            arrays[f"pattern.{key}.indices"] = pattern.indices
        for k, block in enumerate(self.blocks):
            _pack(arrays, f"block.{k}", block.matrix)
            arrays[f"block.{k}.constant"] = block.constant
        for j, spec in enumerate(self.parameters):
            for key in ("lower", "upper", "pattern"):
                if getattr(spec, key) is not None:
                    arrays[f"parameter.{j}.{key}"] = getattr(spec, key)
        for j, output in enumerate(self.outputs):
            if output.matrix is not None:
                _pack(arrays, f"output.{j}", output.matrix)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ProblemMaps:
        """Rebuild the maps from what `to_arrays` returned."""
        header = arrays["header"]
        n, m = header["n"], header["m"]
        P, A = (
            Pattern(shape, arrays[f"pattern.{key}.indptr"], arrays[f"pattern.{key}.indices"])
            for key, shape in (("P", (n, n)), ("A", (m, n)))
        )
        blocks = tuple(
            AffineBlock(_unpack(arrays, f"block.{k}", sp.csc_array), arrays[f"block.{k}.constant"])
            for k in range(5)
        )
        parameters = tuple(
            ParameterSpec(
                **_tuples(plain, ("shape", "attributes")),
                lower=arrays.get(f"parameter.{j}.lower"),
                upper=arrays.get(f"parameter.{j}.upper"),
                pattern=arrays.get(f"parameter.{j}.pattern"),
            )
            for j, plain in enumerate(header["parameters"])
        )
        outputs = tuple(
            OutputSpec(
                **_tuples(plain, ("shape",)),
                matrix=None if plain["kind"] == "objective" else _unpack(arrays, f"output.{j}", sp.csr_array),
            )
            for j, plain in enumerate(header["outputs"])
        )
        structure = Structure(P, A, ProductCone.from_dict(dict(header["cones"])))
        return cls(
            structure,
            header["cones"],
            parameters,
            outputs,
            blocks,
            header["sense"],
            header["log_objective"],
        )


def _source(output: OutputSpec, x: Array, y: Array) -> Array:
    return x if output.kind == "primal" else y


def _given(value: Array | None) -> Array:
    if value is None:
        raise ValueError("The objective is one of the outputs, so its value must be given.")
    return value


def _plain(spec: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that JSON can hold."""
    plain = {key: getattr(spec, key) for key in keys}
    plain["shape"] = list(spec.shape)
    if isinstance(spec, ParameterSpec):
        plain["attributes"] = list(spec.attributes)
    return plain


def _tuples(plain: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Undo JSON's turning of tuples into lists."""
    return {key: tuple(value) if key in keys else value for key, value in plain.items()}


def _pack(arrays: dict[str, Any], key: str, matrix: Any) -> None:
    for part in ("data", "indices", "indptr"):
        arrays[f"{key}.{part}"] = getattr(matrix, part)
    arrays[f"{key}.shape"] = np.array(matrix.shape)


def _unpack(arrays: Mapping[str, Any], key: str, kind: Callable[..., Any]) -> Any:
    parts = tuple(arrays[f"{key}.{part}"] for part in ("data", "indices", "indptr"))
    return kind(parts, shape=tuple(int(k) for k in arrays[f"{key}.shape"]))

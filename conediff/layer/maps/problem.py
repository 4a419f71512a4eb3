"""All maps of a problem: parameters to data, solution to outputs, and the optimal value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from conediff.layer.maps.blocks import AffineBlock, Span
from conediff.layer.maps.outputs import OutputSpec
from conediff.layer.maps.packing import pack, unpack
from conediff.layer.maps.parameters import ParameterSpec
from conediff.layer.maps.value import ValueMaps
from conediff.program import Array, ConeData, Structure


@dataclass(frozen=True, eq=False)
class ProblemMaps(ValueMaps):
    """Everything about a convex problem that does not depend on the values of its parameters.

    The methods in order: parameters to data, solution to outputs, the optimal value, plain arrays.

    Parameters
    ----------
    structure : Structure
        Sizes, sparsity and cones of the cone program.
    cones : dict
        SCS's dictionary of the cones, from which ``structure.cone`` was made.
    parameters : tuple of ParameterSpec
        In the user's order; the features of all parameters are concatenated in the same order.
    outputs : tuple of OutputSpec
        In the user's order.
    blocks : tuple of AffineBlock
        The maps to P, A, b, c, and to the constant d of the objective (one entry).
    sense : {1.0, -1.0}
        1 if the user minimises; -1 if the user maximises: the cone program then minimises the negative.
    log_objective : bool
        Whether the cone program's objective is the logarithm of the user's objective (geometric programs).
    duals : tuple of tuple of OutputSpec
        The dual variables of every constraint, in the problem's order; an empty tuple if cvxpy does not
        recover them.
    """

    structure: Structure
    cones: Mapping[str, Any]
    parameters: tuple[ParameterSpec, ...]
    outputs: tuple[OutputSpec, ...]
    blocks: tuple[AffineBlock, ...]
    sense: float = 1.0
    log_objective: bool = False
    duals: tuple[tuple[OutputSpec, ...], ...] = ()
    # Cache of `_slice`: (block, parameters) -> columns of the block and their transpose.
    _slices: dict[tuple[int, ...], tuple[sp.csc_array, sp.csr_array]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __repr__(self) -> str:
        return f"ProblemMaps({self.signature}, cones={dict(self.cones)})"

    @property
    def signature(self) -> str:
        """Names and shapes of the parameters and outputs, for ``repr``: "(c[2], r[]) -> (x[2])"."""
        ins = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.parameters)
        outs = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.outputs)
        return f"({ins}) -> ({outs})"

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """First feature of each parameter, and one past the last."""
        ends = np.cumsum([0] + [spec.width for spec in self.parameters]).tolist()
        return tuple(pairwise(ends))

    @cached_property
    def touches(self) -> tuple[tuple[bool, ...], ...]:
        """Whether P, A, b, c and d depend on each parameter: ``touches[block][parameter]``."""
        return tuple(tuple(block.touched_by(span) for span in self.spans) for block in self.blocks)

    def evaluate(self, values: Sequence[ArrayLike]) -> tuple[ConeData, Array]:
        """Return the data of a stack of programs.

        Parameters
        ----------
        values : sequence of arrays, each of shape (B, *shape) or (1, *shape)

        Returns
        -------
        data : ConeData
            P, A, b or c has one row if none of the parameters that it depends on has B rows.
        d : array, shape (B,) or (1,)
            Constant term of the objective.
        """
        features = [spec.features(v) for spec, v in zip(self.parameters, values, strict=True)]
        results = [block.constant[None] + self._linear(k, features) for k, block in enumerate(self.blocks)]
        return ConeData(*results[:4]), results[4][:, 0]

    def push_forward(
        self, values: Sequence[ArrayLike], tangents: Sequence[ArrayLike | None]
    ) -> tuple[ConeData, Array]:
        """Return the tangents of the data and of d for tangents of the parameters; None means zero."""
        features = [
            None if dv is None else spec.tangent(v, dv)
            for spec, v, dv in zip(self.parameters, values, tangents, strict=True)
        ]
        return self.linear(features)

    def linear(self, features: Sequence[Array | None]) -> tuple[ConeData, Array]:
        """Return the tangents of the data and of d for those of the features, (R, width); None means zero."""
        results = [self._linear(k, features) for k in range(len(self.blocks))]
        return ConeData(*results[:4]), results[4][:, 0]

    def _linear(self, k: int, features: Sequence[Array | None]) -> Array:
        """Return block k's matrix times the features: one product per number of rows (1 and B)."""
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
        """Group the parameters that block k depends on by their number of rows: 1 or B."""
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
            Cotangents of P, A, b and c, on their sparsity patterns.
        d : array, shape (B,), optional
            Cotangent of the objective's constant; None means zero.
        needed : sequence of bool, optional
            For each parameter whether its cotangent is computed; all by default.

        Returns
        -------
        list of arrays, or None where not needed
            Cotangents in the shapes of the values. That of a value with one row is summed over the stack.
        """
        sums = self.feature_cotangents(values, data, d, needed)
        return [
            None if total is None else spec.cotangent(v, total)
            for spec, v, total in zip(self.parameters, values, sums, strict=True)
        ]

    def feature_cotangents(
        self,
        values: Sequence[ArrayLike],
        data: ConeData,
        d: Array | None = None,
        needed: Sequence[bool] | None = None,
    ) -> list[Array | None]:
        """Do as `pull_back`, but only as far as the features, (R, width) of each parameter."""
        wanted = [True] * len(self.parameters) if needed is None else needed
        sums: list[Array | None] = [
            np.zeros((len(np.asarray(v)), spec.width)) if want else None
            for spec, v, want in zip(self.parameters, values, wanted, strict=True)
        ]
        gs = (data.P, data.A, data.b, data.c, None if d is None else d[:, None])
        for k, g in enumerate(gs):
            if g is not None:
                self._accumulate(k, g, sums)
        return sums

    def _accumulate(self, k: int, g: Array, sums: Sequence[Array | None]) -> None:
        """Add matrix' g of block k to the cotangents of the features."""
        for members in self._by_rows(k, sums):
            first = sums[members[0]]
            assert first is not None
            # One row: summing g before the product saves B - 1 products with a matrix that may be large.
            rows = g.sum(axis=0, keepdims=True) if len(first) == 1 else g
            joined = (self._slice(k, members)[1] @ rows.T).T
            start = 0
            for j in members:
                total = sums[j]
                assert total is not None
                total += joined[:, start : start + total.shape[1]]
                start += total.shape[1]

    def recover(self, x: Array, y: Array, value: Array | None = None) -> list[NDArray[Any]]:
        """Return the outputs, each of shape (B, *shape).

        Parameters
        ----------
        x : array, shape (B, n)
        y : array, shape (B, m)
        value : array, shape (B,), optional
            The optimal value, see `value`; required if the objective is one of the outputs.

        Raises
        ------
        ValueError
            If the objective is one of the outputs and ``value`` is None.
        """
        return [_required(value) if o.kind == "objective" else o.value(o.source(x, y)) for o in self.outputs]

    def recover_tangent(
        self, x: Array, y: Array, dx: Array, dy: Array, dvalue: Array | None = None
    ) -> list[NDArray[Any]]:
        """Return the tangents of the outputs, each of shape (B, *shape).

        ``dvalue`` is the tangent of the optimal value, see `value_tangent`; required if the objective is an
        output.
        """
        return [
            _required(dvalue) if o.kind == "objective" else o.tangent(o.source(x, y), o.source(dx, dy))
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
            Cotangent of the optimal value, an argument of `value_cotangent`; None means zero.
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

    def to_arrays(self) -> dict[str, Any]:
        """Return the maps as a flat dictionary of arrays; JSON can hold its ``"header"``, a dictionary."""
        return pack({f.name: getattr(self, f.name) for f in fields(self) if f.init})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ProblemMaps:
        """Rebuild the maps from the dictionary that `to_arrays` returned."""
        return cls(**unpack(arrays))


def _required(value: Array | None) -> Array:
    """Return the value; raise ValueError if it is None."""
    if value is None:
        raise ValueError("The objective is one of the outputs, so its value must be given.")
    return value

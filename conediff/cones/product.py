"""The product of cones that a program has: offsets, grouping, and SCS's dictionary of cones.

This is the only place where rows are counted. Rows are in SCS's order: z, l, box, q, s, cs, ep, ed, p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.cones._parse import parsed
from conediff.cones.base import Array, Cone, ConeDerivative, DiagonalDerivative, Projection
from conediff.cones.box import Box
from conediff.cones.exponential import DualExponential, Exponential
from conediff.cones.linear import NonNegative, Zero
from conediff.cones.power import Power
from conediff.cones.psd import PSD, ComplexPSD
from conediff.cones.second_order import SecondOrder
from conediff.errors import ConeError

Indices = NDArray[np.intp]
Rows = slice | Indices  # of one group: a slice where its rows follow one another


@dataclass(frozen=True, eq=False)
class ProductDerivative:
    """D = DΠ(v) of a product of cones, and its root S.

    Parameters
    ----------
    cone : ProductCone
    groups : tuple of (cone, rows, derivative)
        The groups of `ProductCone.groups`, each with its derivative.
    batch : tuple of int
        The batch shape of v.
    """

    cone: ProductCone
    groups: tuple[tuple[Cone, Indices, ConeDerivative], ...]
    batch: tuple[int, ...]

    @cached_property
    def margin(self) -> Array:
        """Distance of v to the nearest kink, shape (...); inf where there is none to come near to."""
        result = np.full(self.batch, np.inf)
        for _, _, derivative in self.groups:
            result = np.minimum(result, derivative.margin.min(axis=-1, initial=np.inf))
        return result

    @cached_property
    def diagonal(self) -> Array | None:
        """D's diagonal, shape (..., m), where that is all there is; it is zeros and ones, so that S = D."""
        if not all(isinstance(derivative, DiagonalDerivative) for _, _, derivative in self.groups):
            return None
        return self._each([derivative.apply for _, _, derivative in self.groups], np.ones(self.cone.dim))

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., m)."""
        if self.diagonal is not None:
            return np.asarray(self.diagonal * self.cone.checked(h))
        return self._each([derivative.apply for _, _, derivative in self.groups], h)

    def apply_root(self, h: Array) -> Array:
        """Return S h, for h of shape (..., m)."""
        if self.diagonal is not None:
            return np.asarray(self.diagonal * self.cone.checked(h))
        return self._each([derivative.apply_root for _, _, derivative in self.groups], h)

    def _each(self, operators: list[Callable[[Array], Array]], h: Array) -> Array:
        h = self.cone.checked(h)
        result = np.empty((*np.broadcast_shapes(h.shape[:-1], self.batch), h.shape[-1]))
        for operator, place in zip(operators, self.cone.places, strict=True):
            place.put(result, operator(place.take(h)))
        return result


@dataclass(frozen=True, eq=False)
class ProductProjection:
    """Π(v) of a product of cones.

    Parameters
    ----------
    cone : ProductCone
    point : array, shape (..., m)
    groups : tuple of Projection
        One for each of `ProductCone.groups`.
    """

    cone: ProductCone
    point: Array
    groups: tuple[Projection, ...]

    def derivative(self) -> ProductDerivative:
        """Return the derivative of the projection at the same v."""
        groups = tuple(
            (cone, rows, projection.derivative())
            for (cone, rows), projection in zip(self.cone.groups, self.groups, strict=True)
        )
        return ProductDerivative(self.cone, groups, self.point.shape[:-1])


@dataclass(frozen=True)
class _Place:
    """Where the rows of a group are: ``shape`` is (count, dim)."""

    rows: Rows
    shape: tuple[int, ...]

    @classmethod
    def of(cls, rows: Indices) -> _Place:
        flat = rows.ravel()
        together = (np.diff(flat) == 1).all()
        return cls(slice(int(flat[0]), int(flat[-1]) + 1) if together else flat, rows.shape)

    def take(self, v: Array) -> Array:
        return v[..., self.rows].reshape(*v.shape[:-1], *self.shape)

    def put(self, result: Array, values: Array) -> None:
        result[..., self.rows] = values.reshape(*values.shape[:-2], math.prod(self.shape))


@dataclass(frozen=True)
class ProductCone:
    """A product of cones, as in SCS's dictionary of cones. Made by `from_dict`.

    Parameters
    ----------
    z, l, ep, ed : int
        Numbers of rows of the zero and nonnegative cones; numbers of exponential and dual exponential
        cones.
    bl, bu : tuple of float
        Bounds of the box cone; there is none where they are None.
    q, s, cs : tuple of int
        Rows of the second-order cones, orders of the real and of the complex PSD cones.
    p : tuple of float
        Exponents of the power cones, negative for dual ones.
    """

    z: int = 0
    l: int = 0  # noqa: E741 (SCS's name)
    bl: tuple[float, ...] | None = None
    bu: tuple[float, ...] | None = None
    q: tuple[int, ...] = ()
    s: tuple[int, ...] = ()
    cs: tuple[int, ...] = ()
    ep: int = 0
    ed: int = 0
    p: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, cones: Mapping[str, Any]) -> ProductCone:
        """Read SCS's dictionary of cones.

        Parameters
        ----------
        cones : mapping
            Keys among z, l, bl, bu, q, s, cs, ep, ed, p; a missing one means that there are none.

        Raises
        ------
        ConeError
            If a key is unknown, or a value is not what SCS accepts.
        """
        return cls(**parsed(cones, [field.name for field in fields(cls)]))

    def to_dict(self) -> dict[str, Any]:
        """Return SCS's dictionary: only the cones that there are, lists in place of tuples."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        listed = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {key: value for key, value in listed.items() if value}

    @cached_property
    def dim(self) -> int:
        """Rows of all cones together."""
        return sum(cone.count * cone.dim for cone, _ in self._blocks())

    @cached_property
    def groups(self) -> tuple[tuple[Cone, Indices], ...]:
        """Groups of equal cones, each with its rows (count, dim) among the m; the same rows once only.

        Equal cones are together also where others stand between them.
        """
        gathered: dict[tuple[type, int], list[tuple[Cone, int]]] = {}
        for cone, offset in self._blocks():
            gathered.setdefault((type(cone), cone.dim), []).append((cone, offset))
        return tuple(_group(members) for members in gathered.values())

    @cached_property
    def places(self) -> tuple[_Place, ...]:
        """Where the rows of each group are, as slices where possible."""
        return tuple(_Place.of(rows) for _, rows in self.groups)

    @property
    def pileable(self) -> bool:
        """Whether several copies make a cone that SCS takes: it has room for one box cone only."""
        return self.bl is None

    def project_dual(self, v: Array, near: Array | None = None) -> ProductProjection:
        """Project v, of shape (..., m), onto the dual cone; ``near``, of that shape, is about the result.

        Raises
        ------
        ConeError
            If the last axis of v is not m long.
        """
        v = self.checked(v)
        point = np.empty(v.shape)
        projections = []
        for (cone, _), place in zip(self.groups, self.places, strict=True):
            projection = cone.project_dual(place.take(v), None if near is None else place.take(near))
            place.put(point, projection.point)
            projections.append(projection)
        return ProductProjection(self, point, tuple(projections))

    def pile(self, count: int) -> tuple[ProductCone, Indices]:
        """Stack copies of the cone, cones of one kind together as SCS's order has them.

        Parameters
        ----------
        count : int

        Returns
        -------
        cone : ProductCone
        rows : array of int, shape (count, m)
            The row of the pile at which row r of copy i stands.

        Raises
        ------
        ConeError
            If there is a box cone and more than one copy.
        """
        if count == 1:
            return self, np.arange(self.dim)[None, :]
        if not self.pileable:
            raise ConeError("programs with a box cone cannot be piled: SCS takes one box cone only")
        rows = np.empty((count, self.dim), dtype=np.intp)
        start = 0
        for size in self._kind_sizes():
            local = np.arange(count * size).reshape(count, size)
            rows[:, start : start + size] = count * start + local
            start += size
        values = {name: getattr(self, name) for name in ("z", "l", "q", "s", "cs", "ep", "ed", "p")}
        return ProductCone(**{name: value * count for name, value in values.items()}), rows

    def __reduce__(self) -> tuple[type[ProductCone], tuple[Any, ...]]:
        """Pickle the sizes alone, not the rows found from them."""
        return ProductCone, tuple(getattr(self, field.name) for field in fields(self))

    def checked(self, v: Array) -> Array:
        """Return v as floats, if its last axis is m long."""
        v = np.asarray(v, dtype=np.float64)
        if v.ndim == 0 or v.shape[-1] != self.dim:
            raise ConeError(f"the cones have {self.dim} rows in all, but the array has shape {v.shape}")
        return v

    def _blocks(self) -> Iterator[tuple[Cone, int]]:
        """The cones in the order of their rows, each with its first row; equal neighbours as one."""
        offset = 0
        for kind in self._kinds():
            for cone in kind:
                if cone.count * cone.dim:
                    yield cone, offset
                    offset += cone.count * cone.dim

    def _kinds(self) -> Iterator[list[Cone]]:
        """The cones, one list for each of SCS's kinds."""
        yield [Zero(self.z)]
        yield [NonNegative(self.l)]
        yield [Box(self.bl, self.bu)] if self.bl is not None and self.bu is not None else []
        yield [SecondOrder(count, dim) for count, dim in _runs(self.q)]
        yield [PSD(count, order) for count, order in _runs(self.s)]
        yield [ComplexPSD(count, order) for count, order in _runs(self.cs)]
        yield [Exponential(self.ep)]
        yield [DualExponential(self.ed)]
        yield [Power(self.p)]

    def _kind_sizes(self) -> list[int]:
        return [sum(cone.count * cone.dim for cone in kind) for kind in self._kinds()]


def _runs(sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(length, value) of the runs of equal values."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sizes[stop] != sizes[start]:
            yield stop - start, sizes[start]
            start = stop


def _group(members: list[tuple[Cone, int]]) -> tuple[Cone, Indices]:
    """Join runs of equal cones into one group."""
    blocks = [
        offset + np.arange(cone.count * cone.dim, dtype=np.intp).reshape(cone.count, cone.dim)
        for cone, offset in members
    ]
    rows = np.concatenate(blocks)
    rows.setflags(write=False)
    cone = members[0][0]
    if len(members) == 1:
        return cone, rows
    if isinstance(cone, SecondOrder):
        return SecondOrder(len(rows), cone.dim), rows
    if isinstance(cone, (PSD, ComplexPSD)):
        return type(cone)(len(rows), cone.order), rows
    raise AssertionError(f"cones of type {type(cone).__name__} stand together already")

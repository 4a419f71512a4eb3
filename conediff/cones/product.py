"""The product of the cones of a program: row numbers, groups of equal cones, SCS's dictionary of cones.

Rows are counted in this module only. They are in the order of the registry, which is SCS's: z, l, box, q, s,
cs, ep, ed, p.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from conediff.cones import registry
from conediff.cones.base import Array, Cone, ConeDerivative, DiagonalDerivative, Projection
from conediff.cones.place import Indices, Place
from conediff.cones.registry import Kind
from conediff.errors import ConeError


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
        """Distance of v to the nearest kink, shape (...); inf where Π has no kink."""
        result = np.full(self.batch, np.inf)
        for _, _, derivative in self.groups:
            result = np.minimum(result, derivative.margin.min(axis=-1, initial=np.inf))
        return result

    @cached_property
    def diagonal(self) -> Array | None:
        """D's diagonal, shape (..., m), if D consists of zeros and ones there, so that S = D; else None."""
        if not all(isinstance(derivative, DiagonalDerivative) for _, _, derivative in self.groups):
            return None
        return self._each([derivative.apply for _, _, derivative in self.groups], np.ones(self.cone.dim))

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., m)."""
        if self.diagonal is not None:
            return np.asarray(self.diagonal * self.cone.checked(h))
        return self._each([derivative.apply for _, _, derivative in self.groups], h)

    def bend(self, h: Array, k: Array) -> Array:
        """Return T[h, k], the derivative of D along h applied to k, for h and k of shape (..., m).

        Raises
        ------
        ConeError
            If a cone that is not polyhedral has no `ConeDerivative.bend`.
        """
        h, k = self.cone.checked(h), self.cone.checked(k)
        result = np.zeros((*np.broadcast_shapes(h.shape[:-1], k.shape[:-1], self.batch), self.cone.dim))
        for (cone, _, derivative), place in zip(self.groups, self.cone.places, strict=True):
            if not cone.is_polyhedral:
                place.put(result, derivative.bend(place.take(h), place.take(k)))
        return result

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
        One for each group of `ProductCone.groups`.
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
class ProductCone:
    """A product of cones, as in SCS's dictionary of cones. Made by `from_dict`.

    Parameters
    ----------
    sizes : tuple of (str, value)
        Keys of SCS's dictionary with their parsed values (an int or a tuple), in the order of the registry.
        Keys without a cone are left out, so that equal products are equal values.
    """

    sizes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_dict(cls, cones: Mapping[str, Any]) -> ProductCone:
        """Read SCS's dictionary of cones.

        Parameters
        ----------
        cones : mapping
            Keys among z, l, bl, bu, q, s, cs, ep, ed, p. A missing key, or None, means that there is no such
            cone.

        Raises
        ------
        ConeError
            If a key is unknown, or a value is not what SCS accepts.
        """
        known = [key for kind in registry.KINDS for key in kind.keys]
        # cvxpy lists all kinds that it knows; an unknown key with an empty list has no cone and is ignored.
        unknown = [
            key for key, value in cones.items() if key not in known and (np.ndim(value) == 0 or len(value))
        ]
        if unknown:
            *names, last = [kind.name for kind in registry.KINDS]
            raise ConeError(
                f"unknown cone {unknown[0]!r}; the known ones are {', '.join(known)}: "
                f"{', '.join(names)}, and {last}"
            )
        return cls(tuple(item for kind in registry.KINDS for item in kind.read(cones).items()))

    def to_dict(self) -> dict[str, Any]:
        """Return the dictionary that `from_dict` reads, without absent cones, lists in place of tuples."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.sizes}

    def to_scs(self) -> dict[str, Any]:
        """Return the dictionary that SCS reads; `Kind.scs` says where it differs from `to_dict`."""
        result: dict[str, Any] = {}
        for kind, values in self._kinds:
            for key, value in kind.entries(*values).items():
                result[key] = result[key] + value if key in result else value
        return result

    @cached_property
    def dim(self) -> int:
        """Rows of all cones together."""
        return sum(cone.count * cone.dim for cone, _ in self._blocks())

    @cached_property
    def groups(self) -> tuple[tuple[Cone, Indices], ...]:
        """Groups of equal cones, each with its rows (count, dim) among the m rows.

        Equal cones are in one group even if other cones stand between them.
        """
        gathered: dict[Hashable, list[tuple[Cone, int]]] = {}
        for cone, offset in self._blocks():
            gathered.setdefault((type(cone), cone.group_key), []).append((cone, offset))
        return tuple(_group(members) for members in gathered.values())

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The rows of each group, as slices where possible."""
        return tuple(Place.of(rows) for _, rows in self.groups)

    @property
    def pileable(self) -> bool:
        """Whether SCS accepts several copies of the cone in one program: it takes at most one box cone."""
        return not any(kind.single for kind, _ in self._kinds)

    @property
    def is_polyhedral(self) -> bool:
        """Whether all cones are polyhedral, so that Π is piecewise linear."""
        return all(cone.is_polyhedral for cone, _ in self.groups)

    @property
    def remembered_by_scs(self) -> bool:
        """Whether SCS's projection starts from its result in the previous call, as it does for a box cone."""
        return any(kind.remembered for kind, _ in self._kinds)

    def project_dual(self, v: Array, near: Array | None = None) -> ProductProjection:
        """Project v, of shape (..., m), onto the dual cone.

        ``near``, of the same shape, is a guess of the result; see `Cone.project_dual`.

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
        """Lay several copies of the cone down one block diagonal, with the cones of each kind together.

        Parameters
        ----------
        count : int

        Returns
        -------
        cone : ProductCone
        rows : array of int, shape (count, m)
            Entry (i, r) is the row of the pile that holds row r of copy i.

        Raises
        ------
        ConeError
            If there is more than one copy and a cone of which SCS takes only one.
        """
        if count == 1:
            return self, np.arange(self.dim)[None, :]
        if not self.pileable:
            raise ConeError("programs with a box cone cannot be piled: SCS takes one box cone only")
        rows = np.empty((count, self.dim), dtype=np.intp)
        start = 0
        for kind, values in self._kinds:
            size = sum(cone.count * cone.dim for cone in kind.cones(*values))
            local = np.arange(count * size).reshape(count, size)
            rows[:, start : start + size] = count * start + local
            start += size
        return ProductCone(tuple((key, value * count) for key, value in self.sizes)), rows

    def __reduce__(self) -> tuple[type[ProductCone], tuple[Any, ...]]:
        """Pickle the sizes alone, without the cached row numbers."""
        return ProductCone, (self.sizes,)

    def checked(self, v: Array) -> Array:
        """Return v as floats; raise ConeError if its last axis is not m long."""
        v = np.asarray(v, dtype=np.float64)
        if v.ndim == 0 or v.shape[-1] != self.dim:
            raise ConeError(f"the cones have {self.dim} rows in all, but the array has shape {v.shape}")
        return v

    @property
    def _kinds(self) -> list[tuple[Kind, list[Any]]]:
        """The kinds of cones that are present, in the order of their rows, with the values of their keys."""
        values = dict(self.sizes)
        present = [kind for kind in registry.KINDS if kind.keys[0] in values]
        kinds = [(kind, [values[key] for key in kind.keys]) for kind in present]
        if sum(len(kind.keys) for kind, _ in kinds) != len(values):
            raise ConeError(f"the cones {', '.join(values)} are not all in conediff.cones.registry")
        return kinds

    def _blocks(self) -> Iterator[tuple[Cone, int]]:
        """The cones in the order of their rows, each with its first row; runs of equal cones as one group."""
        offset = 0
        for kind, values in self._kinds:
            for cone in kind.cones(*values):
                if cone.count * cone.dim:
                    yield cone, offset
                    offset += cone.count * cone.dim


def _group(members: list[tuple[Cone, int]]) -> tuple[Cone, Indices]:
    """Join groups of equal cones, each given with its first row, into one group with its rows."""
    blocks = [
        offset + np.arange(cone.count * cone.dim, dtype=np.intp).reshape(cone.count, cone.dim)
        for cone, offset in members
    ]
    rows = np.concatenate(blocks)
    rows.setflags(write=False)
    first, *others = (cone for cone, _ in members)
    return (first.join(others) if others else first), rows

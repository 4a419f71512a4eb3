"""The box cone {(t, s): t lower <= s <= t upper, t >= 0}."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones.automorphism import Automorphism
from conediff.cones.base import Array, ConeDefaults, DerivativeDefaults
from conediff.cones.roots import increasing_root

_INFINITE = 1e15  # Bounds of this size and more are infinite, as in SCS (its MAX_BOX_VAL).


@dataclass(frozen=True, eq=False)
class BoxDerivative(DerivativeDefaults):
    r"""D = diag(active) - w w', the projection onto a subspace, so that S = D.

    Parameters
    ----------
    active : array of 0 and 1, shape (..., 1, dim)
    w : array, shape (..., 1, dim)
        Unit vectors; zero where the projection onto the box cone itself has t = 0.
    margin : array, shape (..., 1)
    """

    active: Array
    w: Array
    margin: Array

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., 1, dim)."""
        component = np.einsum("...i,...i->...", self.w, h)
        return np.asarray(self.active * h - component[..., None] * self.w)

    def apply_root(self, h: Array) -> Array:
        """Return S h = D h."""
        return self.apply(h)

    def bend(self, h: Array, k: Array) -> Array:
        """Return zero: t and the bounds that bind are piecewise linear in v, so D is piecewise constant."""
        return np.zeros(np.broadcast_shapes(self.w.shape, h.shape, k.shape))

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., 1, dim, dim)."""
        D = self.active[..., None] * np.eye(self.active.shape[-1]) - self.w[..., None] * self.w[..., None, :]
        return D, D


@dataclass(frozen=True, eq=False)
class BoxProjection:
    """The two parts of -v = (t0, s0) = primal - point, with primal in K and point in K*.

    Parameters
    ----------
    cone : Box
    point : array, shape (..., 1, dim)
    t0, t : arrays, shape (..., 1)
        First entries of -v and of primal.
    s0 : array, shape (..., 1, dim - 1)
    """

    cone: Box
    point: Array
    t0: Array
    t: Array
    s0: Array

    def derivative(self) -> BoxDerivative:
        """Return I minus the derivative of the projection onto K at -v."""
        bound, active = self.cone.binding(self.t, self.s0)
        w = np.concatenate([np.ones_like(self.t)[..., None], bound], axis=-1)
        w *= ((self.t > 0) / np.linalg.norm(w, axis=-1))[..., None]
        held = np.concatenate([np.ones_like(self.t)[..., None], active], axis=-1)
        return BoxDerivative(held, w, self._margin(bound))

    def _margin(self, bound: Array) -> Array:
        """Return the smallest of the distances of t to leaving or reaching 0, and of each s to its bounds."""
        cone, t = self.cone, self.t
        slack = self.t0 + np.einsum("...i,...i->...", bound, self.s0)
        to_zero = np.where(t > 0, t, -slack / np.sqrt(1 + np.einsum("...i,...i->...", bound, bound)))
        lower, upper, finite_lower, finite_upper = cone.bounds
        apart = lower < upper
        # At t = 0 both bounds of a bounded s are 0, and D does not change where s0 changes sign.
        moves = apart & ((t > 0)[..., None] | ~(finite_lower & finite_upper))
        gaps = [
            np.where(moves & finite, np.abs(self.s0 - t[..., None] * end), np.inf)
            for end, finite in ((lower, finite_lower), (upper, finite_upper))
        ]
        return np.asarray(np.minimum(to_zero, np.minimum(*gaps).min(axis=-1, initial=np.inf)))


@dataclass(frozen=True)
class Box(ConeDefaults):
    r"""One box cone, of rows (t, s).

    .. math:: K = \{(t, s) : t \cdot lower \le s \le t \cdot upper, \ t \ge 0\}

    Parameters
    ----------
    lower, upper : tuple of float
        Bounds of the entries of s. As in SCS, bounds of 1e15 and more are infinite; the entry is then free
        on that side at t = 0 too.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    count = 1
    diagonal = False
    is_polyhedral = True

    @property
    def dim(self) -> int:
        """Rows of the cone."""
        return 1 + len(self.lower)

    @property
    def group_key(self) -> Box:
        """The cone itself: every box is a group of its own."""
        return self

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Use no scaling."""
        return None

    @cached_property
    def bounds(self) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Lower and upper bounds, and which are finite. Infinite ones are replaced by finite numbers."""
        lower, upper = np.array(self.lower, dtype=float), np.array(self.upper, dtype=float)
        finite_lower, finite_upper = lower > -_INFINITE, upper < _INFINITE
        lower = np.where(finite_lower, lower, np.where(finite_upper, upper - 1, 0.0))
        return lower, np.where(finite_upper, upper, lower + 1), finite_lower, finite_upper

    def binding(self, t: Array, s0: Array) -> tuple[Array, Array]:
        """Find where the projection of s0 onto [t lower, t upper] is at a bound.

        Parameters
        ----------
        t : array, shape (...)
        s0 : array, shape (..., dim - 1)

        Returns
        -------
        bound : array, shape (..., dim - 1)
            The binding bound; 0 where none binds.
        active : array of 0 and 1, shape (..., dim - 1)
        """
        lower, upper, finite_lower, finite_upper = self.bounds
        at_lower = finite_lower & ((s0 < t[..., None] * lower) | (lower == upper))
        at_upper = finite_upper & (s0 > t[..., None] * upper)
        bound = np.where(at_lower, lower, np.where(at_upper, upper, 0.0))
        pinned = (t == 0)[..., None] & finite_lower & finite_upper
        return bound, (at_lower | at_upper | pinned).astype(np.float64)

    def project_dual(self, v: Array, near: Array | None = None) -> BoxProjection:
        r"""Project v, of shape (..., 1, dim), by projecting -v onto K.

        Let b be the bounds that bind at t. Then t is the root of the increasing, piecewise linear function
        t - t0 + Σ b (t b - s0), or 0 if that function is not negative at 0.
        """
        t0, s0 = -v[..., 0], -v[..., 1:]
        flat_t0, flat_s0 = t0.ravel(), s0.reshape(-1, self.dim - 1)

        def force(t: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
            bound, _ = self.binding(t, flat_s0[which])
            slope = 1 + np.einsum("ij,ij->i", bound, bound)
            return slope * t - flat_t0[which] - np.einsum("ij,ij->i", bound, flat_s0[which]), slope

        every = np.arange(flat_t0.size)
        zero = np.zeros(flat_t0.size)
        largest = np.maximum(-force(zero, every)[0], 0.0)  # the slope is at least 1
        scale = np.where(largest > 0, largest, 1.0)

        def scaled(x: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
            value, slope = force(x * scale[which], which)
            return value / scale[which], slope

        root = increasing_root(scaled, zero, (largest > 0).astype(float), np.clip(flat_t0 / scale, 0, 1))
        t = root * scale
        for _ in range(2):  # exact once the binding bounds are known
            value, slope = force(t, every)
            t = np.where(largest > 0, np.clip(t - value / slope, 0.0, largest), 0.0)
        return self._projection(v, t0, t.reshape(t0.shape), s0)

    def _projection(self, v: Array, t0: Array, t: Array, s0: Array) -> BoxProjection:
        bound, active = self.binding(t, s0)
        point = np.empty_like(v)
        point[..., 0] = t - t0
        point[..., 1:] = np.where(active > 0, t[..., None] * bound - s0, 0.0)
        return BoxProjection(self, point, t0, t, s0)

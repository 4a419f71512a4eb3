r"""The optimal value, and its derivatives of first and second order.

With a tangent ω of the data and of the constant d, the tangent of the optimal value is, by the envelope
theorem,

.. math:: \mathrm{slope} \cdot χ, \qquad
          χ = \tfrac12 x^\top ω_P x + ω_c^\top x + ω_d + y^\top ω_A x - ω_b^\top y,

a function of the data, the point (x, y) and ω, whose change along changes of all three needs no solve. The
slope is the sense, times the value itself for the exponential of a geometric program.
"""

from __future__ import annotations

import numpy as np

from conediff.program import Array, ConeData, Structure, products

Weighted = tuple[ConeData, Array]  # of the data and of d


class ValueMaps:
    """The part of `ProblemMaps` that concerns the optimal value."""

    structure: Structure
    sense: float
    log_objective: bool

    def value(self, data: ConeData, d: Array, x: Array) -> Array:
        """Return the user's objective at x, shape (B,), with its constant, sign and exponential."""
        P = self.structure.P
        quadratic = np.sum(data.P * x[:, P.indices] * x[:, P.columns], axis=1)
        value: Array = self.sense * (0.5 * quadratic + np.sum(data.c * x, axis=1) + d)
        return np.exp(value) if self.log_objective else value

    def slope(self, data: ConeData, d: Array, x: Array) -> Array | float:
        """Return the derivative of the user's objective with respect to the cone program's."""
        return self.sense * self.value(data, d, x) if self.log_objective else self.sense

    def value_tangent(
        self, data: ConeData, d: Array, x: Array, y: Array, tangent: ConeData, dd: Array
    ) -> Array:
        r"""Return the tangent of the optimal value, shape (B,), for tangents of the data and of d.

        .. math:: dv = \tfrac12 x'dP\,x + x'dc + dd + y'dA\,x - y'db

        Notes
        -----
        Envelope theorem: the Lagrangian is stationary in x and y at the solution, so dx and dy do not
        contribute to first order, and no linear system is solved.
        """
        P, A = self.structure.P, self.structure.A
        change: Array = (
            0.5 * np.sum(tangent.P * x[:, P.indices] * x[:, P.columns], axis=1)
            + np.sum(tangent.A * y[:, A.indices] * x[:, A.columns], axis=1)
            + np.sum(tangent.c * x, axis=1)
            - np.sum(tangent.b * y, axis=1)
            + dd
        )
        return self.slope(data, d, x) * change

    def value_cotangent(
        self, data: ConeData, d: Array, x: Array, y: Array, g: Array
    ) -> tuple[ConeData, Array]:
        """Apply the transpose of `value_tangent` to g, shape (B,): return cotangents of the data and of d."""
        P, A = self.structure.P, self.structure.A
        weight = np.asarray(self.slope(data, d, x) * g)
        w = weight[:, None]
        gP = 0.5 * w * x[:, P.indices] * x[:, P.columns]
        return ConeData(gP, w * y[:, A.indices] * x[:, A.columns], -w * y, w * x), weight


class CurvedValue:
    """The optimal value at the solutions of a stack, as a function of second order.

    Parameters
    ----------
    maps : ValueMaps
    data : ConeData
    d : array, shape (B,) or (1,)
    x, y : arrays, shape (B, n), (B, m)
    """

    def __init__(self, maps: ValueMaps, data: ConeData, d: Array, x: Array, y: Array) -> None:
        self._maps, self._data, self._d, self._x, self._y = maps, data, d, x, y

    def gradient(self, change: ConeData, dd: Array, g: Array) -> tuple[Array, Array, Weighted]:
        """Return the gradient of g times the value's tangent: in x, in y, and in the data and d.

        Parameters
        ----------
        change : ConeData
            ω, and ``dd`` (B,) or (1,), its part in d.
        g : array, shape (B,)
            Cotangent of the value.
        """
        maps, x, y = self._maps, self._x, self._y
        moved = products(maps.structure, change, x, y)
        weight = np.asarray(maps.slope(self._data, self._d, x) * g)[:, None]
        gx, gy = weight * (moved.Px + moved.Aty + change.c), weight * (moved.Ax - change.b)
        own = np.zeros(len(x))
        if maps.log_objective:
            # The slope is sense exp(sense f), and so its derivative in f is the value.
            own = self._value * g * self._chi(change, dd)
            gx = gx + own[:, None] * self._slope_of_f
        return gx, gy, (self._f_cotangent(own), own)

    def change_of_cotangent(self, change: ConeData, dd: Array, dx: Array, dy: Array, g: Array) -> Weighted:
        """Return the change of `ValueMaps.value_cotangent` of g along a change of data and point."""
        maps, (x, y) = self._maps, (self._x, self._y)
        P, A = maps.structure.P, maps.structure.A
        weight = np.asarray(maps.slope(self._data, self._d, x) * g)
        w, u = weight[:, None], np.zeros((len(x), 1))
        if maps.log_objective:
            u = (self._value * g * self._f_tangent(change, dd, dx))[:, None]
        gP = 0.5 * (w * (dx[:, P.indices] * x[:, P.columns] + x[:, P.indices] * dx[:, P.columns]))
        gA = w * (dy[:, A.indices] * x[:, A.columns] + y[:, A.indices] * dx[:, A.columns])
        gP += 0.5 * u * x[:, P.indices] * x[:, P.columns]
        gA += u * y[:, A.indices] * x[:, A.columns]
        return ConeData(gP, gA, -w * dy - u * y, w * dx + u * x), u[:, 0]

    def change_of_tangent(
        self, change: ConeData, dd: Array, dx: Array, dy: Array, direction: tuple[ConeData, Array]
    ) -> Array:
        """Return the change of the value's tangent along a change of data and point, shape (B,)."""
        maps, (omega, omega_d) = self._maps, direction
        moved = products(maps.structure, omega, self._x, self._y)
        along = (dx * (moved.Px + moved.Aty + omega.c)).sum(axis=1) + (dy * (moved.Ax - omega.b)).sum(axis=1)
        result = maps.slope(self._data, self._d, self._x) * along
        if maps.log_objective:
            result = result + self._value * self._f_tangent(change, dd, dx) * self._chi(omega, omega_d)
        return np.asarray(result)

    @property
    def _value(self) -> Array:
        return self._maps.value(self._data, self._d, self._x)

    @property
    def _slope_of_f(self) -> Array:
        """The gradient of f = x'Px / 2 + c'x + d in x."""
        return self._maps.structure.P.products(self._data.P)[0](self._x) + self._data.c

    def _f_cotangent(self, weight: Array) -> ConeData:
        """The gradient of weight times f in the data."""
        structure, x, w = self._maps.structure, self._x, weight[:, None]
        P = structure.P
        gP = 0.5 * w * x[:, P.indices] * x[:, P.columns]
        return ConeData(gP, np.zeros((len(x), structure.A.nnz)), np.zeros(self._y.shape), w * x)

    def _f_tangent(self, change: ConeData, dd: Array, dx: Array) -> Array:
        """The change of f along a change of data and point."""
        x, P = self._x, self._maps.structure.P
        own = 0.5 * np.sum(change.P * x[:, P.indices] * x[:, P.columns], axis=1) + np.sum(
            change.c * x, axis=1
        )
        return np.asarray(own + dd + np.sum(self._slope_of_f * dx, axis=1))

    def _chi(self, change: ConeData, dd: Array) -> Array:
        """χ, the tangent of the cone program's optimal value."""
        x, y = self._x, self._y
        moved = products(self._maps.structure, change, x, y)
        inner = (x * (moved.Px / 2 + change.c)).sum(axis=1) + (y * (moved.Ax - change.b)).sum(axis=1)
        return np.asarray(inner + dd)

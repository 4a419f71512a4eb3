r"""The derivative of the solution map, forward and reverse, for a stack of programs.

With J the Jacobian of the KKT residual (see `residual`), a perturbation of the data moves the solution by
J (dx, dv) = -(dP x + dA'y + dc, dA x - db), and dy = D dv, ds = D dv - dv. Both modes go through the
reduced symmetric system (see `kkt`):

.. math::
    \text{JVP:}\quad & K (dx, t) = (h_1, S h_2), & dv &= S t + A\,dx - h_2, \\
    \text{VJP:}\quad & K (r_1, t) = (g_x - A^\top g_s, S g_y), & r_2 &= S t + g_s,

after which g_c = -r1, g_b = r2, g_A = -(y r1' + r2 x') and g_P = -(r1 x' + x r1')/2.

Where K is singular the map is not differentiable, and the answer is the least-squares one of least norm on M,
the derivative of the homogeneous self-dual embedding (see `embedding`). There r has a third part, along
the left null vector (x, y, 1) of M; taking it out turns M's r into K's. Sources: Agrawal, Barratt, Boyd,
Busseti, Moursi (2019); Healey, Nobel, Boyd (2025).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductDerivative
from conediff.derivative.diagnostics import KINK, MOVED, Diagnostics, Observability, peak, rows_at_kinks
from conediff.errors import AccuracyWarning, DegeneracyWarning, warn
from conediff.kkt.embedding import Embedding
from conediff.kkt.factor import SUSPICIOUS, KKTFactor
from conediff.kkt.least_squares import LinearSolution
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Indices, outer, products, scaled
from conediff.solver.settings import METHODS

# A relative residual up to this counts as solved.
_SOLVED = 1e-10
# K, scaled to rows of about one, counts as singular below this.
_SINGULAR = 1e-11
# A factorisation serves for another S that differs from its own by no more than this.
_NEAR = 1e-5
# Parts of an answer, and how large it is.
_Seen = tuple[tuple[Array, ...], Array]


class Degenerate(Exception):
    """The reduced system alone does not give the answer."""


class StackDerivative:
    """Derivative of the solution map at the solutions of a stack of programs.

    Parameters
    ----------
    kkt : KKTSystem
    data : ConeData
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    method : {"auto", "direct", "lsqr", "lsmr", "dense"}
        "direct" solves with K alone; "lsqr" and "lsmr" iterate on M; "dense" is the reference, a singular
        value decomposition of M; "auto" is direct, and LSQR on M where K is singular.
    visibility : Observability, optional
        What of the data and of the solution matters; everything by default.
    factor : KKTFactor, optional
        Of K for the same data, at points nearby: used where D turns out to be nearly the same.
    strict : bool
        Whether to raise `Degenerate` in place of a warning that the map is not differentiable.
    """

    def __init__(
        self,
        kkt: KKTSystem,
        data: ConeData,
        x: Array,
        y: Array,
        s: Array,
        method: str = "auto",
        visibility: Observability | None = None,
        factor: KKTFactor | None = None,
        strict: bool = False,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
        self.structure = kkt.pattern.structure
        self.data, self.x, self.y, self.s, self.method = data, x, y, s, method
        self.reports: dict[int, LinearSolution] = {}
        self._kkt, self._lock = kkt, threading.Lock()
        self._visibility, self._known, self._strict = visibility, factor, strict
        self._warned = False

    @cached_property
    def D(self) -> ProductDerivative:
        """Derivative of the projection at v = y - s."""
        return self.structure.cone.project_dual(self.y - self.s, self.y).derivative()

    @cached_property
    def factor(self) -> KKTFactor:
        """The factorised reduced system, made when it is first needed."""
        known, self._known = self._known, None
        if known is not None:
            index = np.flatnonzero(~(known.drift(self.D) <= _NEAR))
            if 2 * index.size <= len(self.x):
                factor = known.moved(self.D)
                if index.size:
                    factor.patch(index, self._kkt.factor(self.data.take(index), self._D_at(index)))
                return factor
        return self._kkt.factor(self.data, self.D)

    def _D_at(self, index: NDArray[np.intp]) -> ProductDerivative:
        y, s = self.y[index], self.s[index]
        return self.structure.cone.project_dual(y - s, y).derivative()

    def _factorise_anew(self) -> None:
        """Factorise K itself, where what served in its place does not do."""
        self.__dict__["factor"] = self._kkt.factor(self.data, self.D)

    @cached_property
    def _smallest(self) -> tuple[Array, Array]:
        found = self.factor.smallest_singular_value()
        if self.factor.approximate and not np.all(found[0] >= SUSPICIOUS):
            self._factorise_anew()
            found = self.factor.smallest_singular_value()
        return found

    @property
    def singular(self) -> NDArray[np.bool_]:
        """Whether the reduced system is numerically singular, shape (B,)."""
        return self._smallest[0] < _SINGULAR

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined, and how it was computed."""
        with self._lock:
            value, vector = self._smallest
        n, singular = self.structure.n, self.singular
        unit = np.sqrt(np.finfo(float).eps)
        margin = self._margin()
        primal = ~singular | (np.abs(vector[:, :n]).max(axis=1, initial=0) < unit)
        dual = ~singular | (np.abs(vector[:, n:]).max(axis=1, initial=0) < unit)
        return Diagnostics(
            condition=1 / np.maximum(value, np.finfo(float).tiny),
            strict_complementarity=margin,
            primal_unique=primal,
            dual_unique=dual,
            differentiable=~singular & (margin > KINK),
            reports=dict(self.reports),
        )

    def _margin(self) -> Array:
        size = peak(self.y - self.s)
        size[size == 0] = 1
        margin: Array = self.D.margin / size
        return margin

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation of the data on its own sparsity; see `jvp`."""
        return self.jvp(*products(self.structure, tangent, self.x, self.y))

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; cotangents of P and A on their own sparsity, that of P symmetric."""
        return outer(self.structure, self.x, self.y, *self.vjp(gx, gy, gs))

    def jvp(self, dPx: Array, dAx: Array, dAty: Array, db: Array, dc: Array) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation of the data, given by its products.

        Parameters
        ----------
        dPx, dAx, dAty : arrays, shape (B, n), (B, m), (B, n)
            dP x, dA x and dA'y.
        db, dc : arrays, shape (B, m), (B, n)

        Returns
        -------
        dx, dy, ds : arrays, shape (B, n), (B, m), (B, m)
        """
        (dPx, dAx, dAty, db, dc), size = scaled(len(self.x), dPx, dAx, dAty, db, dc)
        h1, h2 = -(dPx + dAty + dc), db - dAx
        dx, dv = np.zeros_like(h1), np.zeros_like(h2)
        pending = np.arange(len(dx))
        if self.method in ("auto", "direct"):
            z, pending = self._direct(np.hstack([h1, self.D.apply_root(h2)]), adjoint=False)
            dx = z[:, : self.structure.n]
            dv = self.D.apply_root(z[:, self.structure.n :]) + self.factor.operator.A(dx) - h2
        if pending.size:
            # M dz = -dq, with h2's sign turned: M's middle row is minus K's.
            last = (self.x * (dPx + dc)).sum(axis=1) + (self.y * db).sum(axis=1)
            rhs = np.column_stack([h1, -h2, last])
            for i, (du, dv_i, dw) in self._on_embeddings(pending, rhs, adjoint=False):
                dx[i], dv[i] = du - self.x[i] * dw, dv_i - (self.y[i] - self.s[i]) * dw
        dy = self.D.apply(dv)

        def of_side(side: StackDerivative, k: Indices) -> _Seen:
            part = side.jvp(dPx[k], dAx[k], dAty[k], db[k], dc[k])[:2]
            return part, np.maximum(peak(dx[k]), peak(dy[k]))

        self._warn_at_kinks(lambda: dv, of_side)
        return dx * size, dy * size, (dy - dv) * size

    def vjp(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array]:
        """Apply the adjoint to cotangents of the solution.

        Parameters
        ----------
        gx, gy, gs : arrays, shape (B, n), (B, m), (B, m)

        Returns
        -------
        r1, r2 : arrays, shape (B, n), (B, m)
            From which g_c = -r1, g_b = r2, g_A = -(y r1' + r2 x'), g_P = -(r1 x' + x r1')/2.
        """
        (gx, gy, gs), size = scaled(len(self.x), gx, gy, gs)
        r1, r2 = np.zeros_like(gx), np.zeros_like(gy)
        pending = np.arange(len(gx))
        if self.method in ("auto", "direct"):
            At = self.factor.operator.At
            z, pending = self._direct(np.hstack([gx - At(gs), self.D.apply_root(gy)]), adjoint=True)
            r1, r2 = z[:, : self.structure.n], self.D.apply_root(z[:, self.structure.n :]) + gs
        if pending.size:
            last = -(self.x * gx).sum(axis=1) - (self.y * gy).sum(axis=1) - (self.s * gs).sum(axis=1)
            rhs = np.column_stack([gx, self.D.apply(gy + gs) - gs, last])
            for i, (r1_i, r2_i, r3) in self._on_embeddings(pending, rhs, adjoint=True):
                r1[i], r2[i] = r1_i - r3 * self.x[i], r3 * self.y[i] - r2_i

        def of_side(side: StackDerivative, k: Indices) -> _Seen:
            g = side.pull(gx[k], gy[k], gs[k])
            parts = (g.P, g.A, g.b, g.c)
            return parts, np.max([peak(part) for part in parts], axis=0)

        # J'(r1, r2) = g says r2 = gs + D h with this h: where it vanishes, the choice of D does not matter.
        A = self.structure.A.products
        self._warn_at_kinks(lambda: A(self.data.A)[0](r1) + r2 - gy - gs, of_side)
        return r1 * size, r2 * size

    def _direct(self, rhs: Array, adjoint: bool) -> tuple[Array, NDArray[np.intp]]:
        """Solve with K; say for which programs M has to answer instead."""
        with self._lock:
            ambiguous = self.singular
            z, error = self.factor.solve(rhs)
            if self.factor.approximate and not np.all(error <= _SOLVED):
                self._factorise_anew()
                z, error = self.factor.solve(rhs)
            short = ~(error <= _SOLVED)
            if self.method == "direct":
                if short.any():
                    _warn_accuracy(
                        np.flatnonzero(short), float(error[short].max()), "the reduced system is singular"
                    )
                return z, np.zeros(0, dtype=np.intp)
            if ambiguous.any() and self._visibility is not None:
                ambiguous = ambiguous & self._null_vector_seen(adjoint)
            pending = np.flatnonzero(short | ambiguous)
        if pending.size:
            self._warn_degenerate(
                pending, "the linear system is singular: the solution, or its dual, is not unique"
            )
        return z, pending

    def _warn_at_kinks(
        self, h: Callable[[], Array], of_side: Callable[[StackDerivative, Indices], _Seen]
    ) -> None:
        """Warn where the answer took D's word for a direction h in which Π has a kink, and it matters.

        Parameters
        ----------
        h : callable
            What D was applied to, shape (B, m): needed at kinks only.
        of_side : callable
            Takes the derivative on one side of the kink and the elements it is of; returns the answer there.
        """
        if self._warned or not (self._margin() <= KINK).any():
            return
        kinked = rows_at_kinks(self.D, self.y - self.s, h())
        elements = np.flatnonzero(kinked.any(axis=1))
        if elements.size == 0:
            return
        sides = [of_side(self._side(elements, kinked[elements], sign), elements) for sign in (1.0, -1.0)]
        (first, size), (second, _) = sides
        different = [a - b for a, b in zip(first, second, strict=True)]
        changed = np.max([peak(part) for part in different], axis=0) > MOVED * size
        if self._visibility is not None and changed.any():
            visibility = self._visibility.take(elements)
            if len(different) == 2:
                changed &= visibility.of_solution(*different)
            else:
                changed &= visibility.of_data(ConeData(*different))
        if changed.any():
            self._warn_degenerate(
                elements[changed], "strict complementarity fails: an active constraint with a zero multiplier"
            )

    def _side(self, elements: Indices, kinked: NDArray[np.bool_], sign: float) -> StackDerivative:
        """Return the derivative a little to one side of the kink, which is not to warn."""
        y, s = self.y[elements], self.s[elements]
        # Random entries: some cones have no kink along the line through equal ones.
        signs = sign * np.random.default_rng(0).uniform(0.5, 1.5, y.shape[1])
        step = 10 * KINK * np.maximum(peak(y - s), KINK)[:, None] * signs * kinked
        data, x = self.data.take(elements), self.x[elements]
        side = StackDerivative(self._kkt, data, x, y + step, s, self.method, self._visibility)
        side._warned = True
        return side

    def _warn_degenerate(self, indices: NDArray[np.intp], reason: str) -> None:
        """Warn once for this derivative."""
        if self._strict:
            raise Degenerate
        if not self._warned:
            self._warned = True
            warn(
                f"the solution map is not differentiable at {_listed(indices)} ({reason}); "
                "the least-squares derivative of least norm is returned; see .diagnostics of the solution, "
                "and 'Where there is no derivative' in the guide",
                DegeneracyWarning,
            )

    def _null_vector_seen(self, adjoint: bool) -> NDArray[np.bool_]:
        """Whether adding a null vector of K to the answer would change what the user sees of it."""
        assert self._visibility is not None
        vector, n = self._smallest[1], self.structure.n
        first, second = vector[:, :n], self.D.apply_root(vector[:, n:])
        if adjoint:
            return self._visibility.of_data(outer(self.structure, self.x, self.y, first, second))
        return self._visibility.of_solution(first, self.D.apply(second + self.factor.operator.A(first)))

    def _on_embeddings(
        self, pending: NDArray[np.intp], rhs: Array, adjoint: bool
    ) -> Iterator[tuple[np.intp, tuple[Array, Array, float]]]:
        """Solve with M, or its adjoint, for one program after the other; warn once where it fell short."""
        for i in pending:
            yield i, self._on_embedding(i, rhs[i], adjoint)
        short = [i for i in pending if not self.reports[int(i)].converged]
        if short:
            worst = max((self.reports[int(i)] for i in short), key=lambda report: report.residual)
            _warn_accuracy(np.array(short), worst.residual, worst.reason)

    def _on_embedding(self, i: np.intp, rhs: Array, adjoint: bool) -> tuple[Array, Array, float]:
        """Solve with M, or its adjoint, of one program; return the three parts."""
        index = np.array([i])
        D = self.structure.cone.project_dual((self.y - self.s)[index]).derivative()
        M = Embedding(self.structure, self.data.take(index), self.x[i], self.y[i], D)
        report = M.least_squares(rhs, self.method, adjoint)
        self.reports[int(i)] = report
        n = self.structure.n
        return report.value[:n], report.value[n:-1], float(report.value[-1])


def _warn_accuracy(indices: NDArray[np.intp], residual: float, reason: str) -> None:
    warn(
        f"the derivative of {_listed(indices)} is inaccurate: relative residual {residual:.1e} ({reason}); "
        "see .diagnostics of the solution, scale the problem, or, if it is small, choose method='dense'",
        AccuracyWarning,
    )


def _listed(indices: NDArray[np.intp]) -> str:
    shown = ", ".join(str(i) for i in indices[:5]) + (", ..." if indices.size > 5 else "")
    return f"element {shown}" if indices.size == 1 else f"elements {shown}"

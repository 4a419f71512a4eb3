"""How right a solution and its derivative are, from the definitions, by no code of the library.

The library's projections are used in `linear_residuals` only, for the derivative of the projection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff import ConeProgram

Array = NDArray[np.float64]


ROUNDING = 16 * np.finfo(float).eps  # relative rounding error of a sum of products


def ratio(residual: Any, *terms: Any, products: Any = 0.0) -> float:
    """Return the largest entry of a residual relative to the largest of its terms; 0 for 0 / 0.

    If rounding of ``products``, the sums of the absolute values of all that is added up, explains the whole
    residual, it is relative to them: at some solutions all terms of an equation are zero but for rounding.
    """
    top = float(np.abs(residual).max(initial=0.0))
    if (np.abs(residual) <= ROUNDING * np.asarray(products)).all():
        terms = (products,)
    bottom = max(float(np.abs(term).max(initial=0.0)) for term in terms)
    if top == 0:
        return 0.0
    return top / bottom if bottom > 0 else np.inf


def kkt_residual(program: ConeProgram, x: Array, y: Array, s: Array) -> float:
    """Return the largest violation of the conditions of optimality; infinite at a point that is not finite.

    The conditions are P x + A'y + c = 0, A x + s = b, s in K, y in K*, and a duality gap of zero. Each
    violation is relative to the largest of its terms; that of the gap to the largest of |x|'|Px|, |c|'|x| and
    |b|'|y|.
    """
    if not all(np.isfinite(part).all() for part in (x, y, s)):
        return np.inf
    P, A, b, c = program.P, program.A, program.b, program.c
    Px, Aty, Ax = P @ x, A.T @ y, A @ x
    gap = x @ Px + c @ x + b @ y
    gap_terms = np.abs(x) @ np.abs(Px), np.abs(c) @ np.abs(x), np.abs(b) @ np.abs(y)
    return max(
        ratio(Px + Aty + c, Px, Aty, c, products=abs(P) @ np.abs(x) + abs(A).T @ np.abs(y) + np.abs(c)),
        ratio(Ax + s - b, Ax, s, b, products=abs(A) @ np.abs(x) + np.abs(s) + np.abs(b)),
        ratio(gap, *gap_terms, products=abs(P) @ np.abs(x) @ np.abs(x) + sum(gap_terms)),
        ratio(distance(program.cones, s, dual=False), s),
        ratio(distance(program.cones, y, dual=True), y),
    )


def certificate_residual(program: ConeProgram, status: str, x: Array, y: Array, s: Array) -> float:
    """Return by how much a certificate misses: of infeasibility y, of unboundedness x and s.

    y certifies infeasibility if A'y = 0, y in K* and b'y < 0; x and s certify unboundedness if P x = 0,
    A x + s = 0, s in K and c'x < 0. Violations are relative to the terms |A|'|y|, |P||x| and |A||x|; infinite
    where the inequality fails.
    """
    P, A, b, c = program.P, program.A, program.b, program.c
    if status == "infeasible":
        if not np.isfinite(y).all() or not b @ y < 0:
            return np.inf
        return max(ratio(A.T @ y, abs(A).T @ np.abs(y)), ratio(distance(program.cones, y, dual=True), y))
    if not (np.isfinite(x).all() and np.isfinite(s).all()) or not c @ x < 0:
        return np.inf
    return max(
        ratio(P @ x, abs(P) @ np.abs(x)),
        ratio(A @ x + s, abs(A) @ np.abs(x), s),
        ratio(distance(program.cones, s, dual=False), s),
    )


def distance(cones: dict[str, Any], v: Array, dual: bool) -> float:
    """Return the largest distance, or an upper bound of it, of a part of v from its cone or dual cone."""
    parts, start = [0.0], 0

    def take(rows: int) -> Array:
        nonlocal start
        start += rows
        return v[start - rows : start]

    zero = take(cones.get("z", 0))
    if not dual:
        parts.append(float(np.abs(zero).max(initial=0.0)))
    parts.append(float(-take(cones.get("l", 0)).min(initial=0.0)))
    for size in cones.get("q", ()):
        part = take(size)
        parts.append(max(0.0, float(np.linalg.norm(part[1:]) - part[0])))
    for order in cones.get("s", ()):
        eigenvalues = np.linalg.eigvalsh(_matrix(take(order * (order + 1) // 2), order))
        parts.append(float(np.linalg.norm(np.minimum(eigenvalues, 0))))
    for kind in ("ep", "ed"):
        for _ in range(cones.get(kind, 0)):
            x, y, z = take(3)
            # (u, v, w) is in the dual cone if (u - v, -u, w) is in the cone; the map is 1.7 at most.
            parts.append(_exponential(x, y, z) if (kind == "ep") != dual else _exponential(x - y, -x, z))
    for a in cones.get("p", ()):
        x, y, z = take(3)
        if (a > 0) == dual:
            x, y = x / abs(a), y / (1 - abs(a))
        parts.append(_power(abs(a), x, y, z))
    return max(parts)


def _matrix(svec: Array, order: int) -> Array:
    column, row = np.triu_indices(order)
    matrix = np.zeros((order, order))
    matrix[row, column] = matrix[column, row] = svec / np.where(row == column, 1.0, np.sqrt(2.0))
    return matrix


def _exponential(x: float, y: float, z: float) -> float:
    """Return an upper bound of the distance from {y exp(x/y) <= z, y > 0} and its closure.

    It is the least of three ways into the cone: raise z, lower x, or go to the face x <= 0 = y <= z.
    """
    ways = [float(np.linalg.norm([max(x, 0.0), y, min(z, 0.0)]))]
    if y > 0:
        if x / y < 700:
            ways.append(max(0.0, y * np.exp(x / y) - z))
        if z > 0:
            ways.append(max(0.0, x - y * np.log(z / y)))
    return min(ways)


def _power(a: float, x: float, y: float, z: float) -> float:
    """Return an upper bound of the distance from {x^a y^(1-a) >= |z|, x, y >= 0}: clip x and y, shrink z."""
    clipped = np.linalg.norm([min(x, 0.0), min(y, 0.0)])
    return float(clipped + max(0.0, abs(z) - max(x, 0.0) ** a * max(y, 0.0) ** (1 - a)))


def linear_residuals(
    program: ConeProgram,
    point: tuple[Array, Array, Array],
    tangent: Any,
    answer: Any,
    cotangent: Array,
    g: Any,
) -> tuple[float, float]:
    """Return the relative residuals of the linear systems behind one jvp and one vjp.

    With q = dP x + dA'y + dc, r = dA x - db and the derivative D of the projection onto K* at y - s, the jvp
    solves P dx + A'dy = -q, A dx + ds = -r, dy = D (dy - ds). The vjp of a cotangent u of x has dc = -w and
    db = z with P w + A'z = u, z = D (A w + z). Each equation's residual is relative to its largest term.

    Parameters
    ----------
    point : (x, y, s)
    tangent : (dP, dA, db, dc)
        The jvp's argument.
    answer : (dx, dy, ds)
        The jvp.
    cotangent : array, shape (n,)
        The vjp's argument u.
    g : DataTangent
        The vjp.
    """
    x, y, s = point
    P, A = program.P, program.A
    cone = program.structure.cone
    derivative = cone.project_dual((y - s)[None]).derivative()

    def D(h: Array) -> Array:
        return np.asarray(derivative.apply(h[None])[0])

    dP, dA, db, dc = tangent
    dx, dy, ds = answer
    q, r = dP @ x + dA.T @ y + dc, dA @ x - db
    forward = max(
        ratio(P @ dx + A.T @ dy + q, P @ dx, A.T @ dy, q),
        ratio(A @ dx + ds + r, A @ dx, ds, r),
        ratio(dy - D(dy - ds), dy, ds),
    )
    w, z = -g.dc, g.db
    Aw = A @ w
    reverse = max(ratio(P @ w + A.T @ z - cotangent, P @ w, A.T @ z, cotangent), ratio(z - D(Aw + z), z, Aw))
    return forward, reverse


def adjoint_error(tangent: Any, answer: Any, cotangent: Array, g: Any) -> float:
    """Return |<u, dx> - <g, tangent>| relative to |u| |dx|: zero if the vjp is the adjoint of the jvp."""
    dP, dA, db, dc = tangent
    left = cotangent @ answer[0]
    right = (g.dP * dP).sum() + (g.dA * dA).sum() + g.db @ db + g.dc @ dc
    return ratio(left - right, np.linalg.norm(cotangent) * np.linalg.norm(answer[0]))

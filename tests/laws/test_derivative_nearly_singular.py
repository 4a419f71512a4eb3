"""K more and more nearly singular: the two modes stay adjoint to each other, and the user is told in time.

Each program is known by construction, with rows, or columns, that depend on each other but for the root of
σ: K has singular values of about σ. How K is solved with depends on the program alone, so that both modes,
all right-hand sides and all places in a batch are treated alike.
"""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.cones import ProductCone, svec
from tests.programs import distance, program, slopes

CONES = {
    "linear": {"z": 4, "l": 6},
    "second-order": {"z": 4, "q": [4, 5]},
    "PSD": {"z": 4, "s": [3, 2]},
    "exponential and power": {"z": 4, "ep": 1, "ed": 1, "p": [0.3, -0.6]},
    "large second-order": {"z": 4, "q": [120]},
    "large PSD": {"z": 4, "l": 3, "s": [34]},
    "everything": {"z": 4, "l": 2, "q": [3], "s": [3], "cs": [2], "ep": 1, "p": [0.4]},
}
SIZES = [1e-4, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 0.0]


def nearly_singular(cones, sigma, kind, seed):
    """A program whose multipliers ("dual") or variables ("primal") are hardly unique."""
    rng = np.random.default_rng(seed)
    cone = ProductCone.from_dict(cones)
    v = interior(rng, cone, cones)
    while cone.project_dual(v).derivative().margin < 5e-2:
        v = interior(rng, cone, cones)
    full = int((np.linalg.eigvalsh(slopes(cone, v)) > 1 - 1e-9).sum())
    n = full + 3
    A, root = rng.standard_normal((cone.dim, n)), rng.standard_normal((n, n))
    if kind == "dual":
        A[0] = A[1] - A[2] + np.sqrt(sigma) * rng.standard_normal(n)
    else:
        A[:, 0] = A[:, 1] - A[:, 2] + np.sqrt(sigma) * rng.standard_normal(cone.dim)
        root[0] = root[1] - root[2]
    return program(v, rng.standard_normal(n), A, root @ root.T / n, cones)


def interior(rng, cone, cones):
    """A random v; of large PSD matrices three eigenvalues are positive, so that few columns suffice."""
    v = 2 * rng.standard_normal(cone.dim)
    for order in cones.get("s", []):
        if order > 10:
            Q = np.linalg.qr(rng.standard_normal((order, order)))[0]
            eigenvalues = 1 + rng.random(order)
            eigenvalues[3:] *= -1
            v[-order * (order + 1) // 2 :] = svec((Q * eigenvalues) @ Q.T)
    return v


def listened(action):
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = action()
    return result, {w.category for w in record}


def adjoint_error(tangent, answer, cotangent, pulled):
    """|<jvp(t), g> - <t, vjp(g)>| relative to what rounding of either side may be."""

    def size(parts):
        return np.sqrt(sum((np.asarray(part) ** 2).sum() for part in parts))

    left = sum(float((a * b).sum()) for a, b in zip(answer, cotangent, strict=True))
    right = sum(float((a * b).sum()) for a, b in zip(tangent, pulled, strict=True))
    return abs(left - right) / max(size(answer) * size(cotangent), size(tangent) * size(pulled))


def directions(rng, n, m):
    symmetric = rng.standard_normal((n, n))
    tangent = (
        symmetric + symmetric.T,
        rng.standard_normal((m, n)),
        rng.standard_normal(m),
        rng.standard_normal(n),
    )
    return tangent, (rng.standard_normal(n), rng.standard_normal(m), rng.standard_normal(m))


@pytest.mark.parametrize("kind", ["dual", "primal"])
@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("sigma", SIZES)
def test_both_modes_are_adjoint_however_near_to_singular(name, kind, sigma):
    for seed in range(3):
        known = nearly_singular(CONES[name], sigma, kind, seed)
        solution, told_before = listened(lambda known=known: known.at_solution(on_failure="nan"))
        assert solution.status in ("solved", "inaccurate"), (solution.status, seed)
        tangent, g = directions(np.random.default_rng(seed), known.program.n, known.program.m)
        derivative = solution.derivative()

        def ask(derivative=derivative, tangent=tangent, g=g):
            return derivative.jvp(*tangent), derivative.vjp(*g)

        (answer, pulled), told = listened(ask)
        dense = pulled.dP.toarray(), pulled.dA.toarray(), pulled.db, pulled.dc
        assert adjoint_error(tangent, answer, g, dense) <= 1e-8
        condition = derivative.diagnostics.condition[0]
        if condition > 1e12:
            assert cd.DegeneracyWarning in told
        elif condition < 1e6:
            assert not told and not told_before
        if sigma == 0:
            assert condition > 1e14


@pytest.mark.parametrize("sigma", [1e-7, 1e-9, 1e-13])
def test_a_program_is_treated_alike_at_every_place_of_a_batch(sigma):
    cones, count = CONES["everything"], 5
    regular = nearly_singular(cones, 1.0, "dual", 0).program
    for place in range(count):
        programs = [regular] * count
        programs[place] = bad = nearly_singular(cones, sigma, "dual", 0).program
        (batch, alone), _ = listened(
            lambda programs=programs, bad=bad: (cd.solve_batch(programs), cd.solve(bad))
        )
        g = np.random.default_rng(place).standard_normal((count, bad.n))
        derivative = batch.derivative()
        pulled, told = listened(lambda derivative=derivative, g=g: derivative.vjp(dx=g))
        one, more = listened(lambda alone=alone, g=g, place=place: alone.derivative().vjp(dx=g[place]))
        # The two solutions differ by their residuals times 1 / sigma: they are close, or the user is told.
        if cd.AccuracyWarning not in told | more:
            np.testing.assert_allclose(pulled.dc[place], one.dc, atol=1e-4 * np.abs(one.dc).max())
        nearly = derivative.diagnostics.condition > 1e6
        np.testing.assert_array_equal(nearly, np.arange(count) == place)


def test_the_answer_of_least_norm_is_the_dense_one_for_all_numbers_of_null_vectors():
    """From one null vector to dozens, primal and dual at once; as the decomposition of M has it."""
    for k in (1, 2, 5, 30):
        rng = np.random.default_rng(k)
        cones = {"z": 40, "l": 3, "q": [4]}
        cone = ProductCone.from_dict(cones)
        v = rng.standard_normal(cone.dim)
        A = rng.standard_normal((cone.dim, 30))
        A[:k] = rng.standard_normal((k, 40 - k)) @ A[k:40] if k < 12 else A[:k]
        A[:, :5] = A[:, 5:10]
        solution = program(v, rng.standard_normal(30), A, None, cones).at_solution()
        derivative, reference = solution.derivative(), solution.derivative("dense")
        tangent, g = directions(rng, 30, cone.dim)
        found, told = listened(lambda d=derivative, t=tangent, g=g: (d.jvp(*t), d.vjp(*g)))
        expected, _ = listened(lambda d=reference, t=tangent, g=g: (d.jvp(*t), d.vjp(*g)))
        assert told == {cd.DegeneracyWarning}
        report = derivative.diagnostics.reports[0]
        assert report.converged and report.reason.startswith("solved with K")
        assert distance(found[0], expected[0]) < 1e-7
        assert distance([found[1].db, found[1].dc], [expected[1].db, expected[1].dc]) < 1e-7


def radius_problem():
    """A distributionally robust second moment: flat in its multiplier where the radius is small."""
    r2, lam, e, Z = cp.Parameter(), cp.Variable(), cp.Variable(), cp.Variable((2, 2), symmetric=True)
    Q, mu, S = np.array([[1, 0.2], [0.2, 0.5]]), np.array([[1.0], [0.5]]), np.array([[0.6, 0.1], [0.1, 0.7]])
    inner = lam * np.eye(2) - Q
    first = cp.bmat([[inner, lam * mu], [lam * mu.T, cp.reshape(e, (1, 1), order="C")]])
    second = cp.bmat([[inner, lam * S], [lam * S, Z]])
    value = lam * (r2 - mu[:, 0] @ mu[:, 0] - np.trace(S @ S)) + e + cp.trace(Z)
    blocks = [(first + first.T) / 2 >> 0, (second + second.T) / 2 >> 0]
    return cp.Problem(cp.Minimize(value), blocks), r2, lam


@pytest.mark.parametrize("radius", [1e-1, 1e-2, 1e-3, 3e-4, 1e-4])
def test_a_flat_optimum_is_right_or_the_user_is_told(radius):
    problem, r2, lam = radius_problem()
    layer = cd.CvxpyLayer(problem, [r2], [lam])

    def ask():
        solution = layer.solve(np.array(radius**2))
        return solution.values[0], solution.vjp(np.ones(()))[0]

    (_, slope), told = listened(ask)
    if cd.AccuracyWarning in told:
        assert radius <= 1e-3
        return
    h = 1e-3 * radius**2
    (up, _), (down, _) = (listened(lambda t=t: layer(np.array(radius**2 + t)))[0][0:1] * 2 for t in (h, -h))
    assert slope == pytest.approx(float(up - down) / (2 * h), rel=1e-3)


def test_a_residual_that_allows_a_large_error_is_told_in_both_modes():
    """Stopped early: the residual is below 1e-7, and a singular value of 1e-6 makes 1e-1 of it."""
    known = nearly_singular(CONES["linear"], 1e-6, "dual", 1)
    exact, _ = listened(known.at_solution)
    moved = exact.y.copy()
    scale = np.linalg.norm(known.program.A.toarray()[:4], axis=1).max()
    direction = np.zeros(known.program.m)
    direction[:3] = [1, -1, 1]
    moved += 1e-2 * direction / scale
    loose = cd.solve(known.program, warm_start=(exact.x, moved, exact.s), tol=1e-5, refine=False)
    for action in (
        lambda d: d.vjp(dx=np.ones(known.program.n)),
        lambda d: d.jvp(dc=np.ones(known.program.n)),
    ):
        _, told = listened(lambda action=action: action(loose.derivative()))
        assert cd.AccuracyWarning in told

"""Where the solution map is not differentiable: the answer of least norm, and a warning that says so."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.cones import ProductCone
from tests.programs import (
    CONES,
    cotangent,
    curve,
    dense,
    distance,
    jacobian,
    program,
    quadratic,
    random_cones,
    sizes,
    slopes,
)

RNG = np.random.default_rng(30)
ROWS = RNG.standard_normal((2, 5))
EYE = np.eye(2)


def degenerate():
    """Name: (program, whether x is unique, whether y is)."""
    redundant = np.vstack([ROWS, ROWS.sum(axis=0)])
    return {
        "redundant equality": (
            cd.ConeProgram(redundant, redundant @ np.ones(5), RNG.standard_normal(5), {"z": 3}, np.eye(5)),
            True,
            False,
        ),
        "face of solutions": (
            cd.ConeProgram([[-1, -1], [-1, 0], [0, -1]], [-1, 0, 0], [1, 1], {"l": 3}),
            False,
            True,
        ),
        "duplicate constraint, LP": (
            cd.ConeProgram([[-1, 0], [-1, 0], [0, -1]], [-1, -1, -2], [1, 1], {"l": 3}),
            True,
            False,
        ),
        "duplicate constraint, QP": (
            cd.ConeProgram([[-1, 0], [-1, 0], [0, -1]], [-1, -1, -2], [1, 1], {"l": 3}, EYE),
            True,
            False,
        ),
        "free variable": (cd.ConeProgram([[-1.0, 0.0]], [-1.0], [1.0, 0.0], {"l": 1}), False, True),
        "no objective": (cd.ConeProgram(-EYE, [-1, -1], [0, 0], {"l": 2}), False, True),
        "both": (
            cd.ConeProgram([[-1, 0, 0], [-1, 0, 0]], [-1, -1], [1, 0, 0], {"l": 2}, np.diag([0.0, 0.0, 1.0])),
            False,
            False,
        ),
    }


DEGENERATE = degenerate()
# Strict complementarity fails: a constraint that holds with equality and multiplier zero.
KINKS = {
    "nonnegative": cd.ConeProgram(-EYE, [0, 0], [0, -1], {"l": 2}, EYE),
    "second-order apex": cd.ConeProgram(-np.eye(3), np.zeros(3), np.zeros(3), {"q": [3]}, np.eye(3)),
    "second-order boundary": cd.ConeProgram(
        -np.eye(3), np.zeros(3), [-1.0, -1.0, 0.0], {"q": [3]}, np.eye(3)
    ),
    "PSD": cd.ConeProgram(-np.eye(3), np.zeros(3), [-1.0, 0.0, 0.0], {"s": [2]}, np.eye(3)),
    "box": cd.ConeProgram(-np.eye(2), [0.0, 0.0], [-1.0, -1.0], {"bl": [-1.0], "bu": [1.0]}, np.eye(2)),
}


def caught(action):
    """The result, and the warnings of degeneracy that were issued."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = action()
    assert all(issubclass(w.category, cd.DegeneracyWarning) for w in record), [str(w.message) for w in record]
    return result, [str(w.message) for w in record]


def modes(solution, method, seed=31):
    """Both modes' answers, with fixed inputs, and the derivative they came from."""
    rng = np.random.default_rng(seed)
    n, m = solution.x.size, solution.y.size
    g = rng.standard_normal(n), rng.standard_normal(m), rng.standard_normal(m)
    derivative = solution.derivative(method)
    dA = rng.standard_normal((m, n))
    moved, pulled = derivative.jvp(dA=dA, db=g[1], dc=g[0]), derivative.vjp(*g)
    return moved, pulled, derivative


@pytest.mark.parametrize("name", DEGENERATE)
def test_auto_is_the_least_norm_answer(name):
    solution = cd.solve(DEGENERATE[name][0])
    (moved, pulled, _), messages = caught(lambda: modes(solution, "auto"))
    assert messages and all("singular" in message for message in messages)
    for method in ("dense", "lsqr", "lsmr"):
        (expected_moved, expected_pulled, _), _ = caught(lambda method=method: modes(solution, method))
        assert distance(moved, expected_moved) < 1e-7
        assert distance(pulled, expected_pulled) < 1e-7


@pytest.mark.parametrize("name", DEGENERATE)
def test_diagnostics_say_what_is_not_unique(name):
    program, primal, dual = DEGENERATE[name]
    d = cd.solve(program).derivative().diagnostics
    assert (bool(d.primal_unique[0]), bool(d.dual_unique[0])) == (primal, dual)
    assert not d.differentiable[0] and d.condition[0] > 1e11


@pytest.mark.parametrize("name", KINKS)
def test_kinks(name):
    solution = cd.solve(KINKS[name])
    (moved, pulled, derivative), messages = caught(lambda: modes(solution, "auto"))
    assert messages and "strict complementarity" in messages[0]
    (expected_moved, expected_pulled, _), _ = caught(lambda: modes(solution, "dense"))
    assert distance(moved, expected_moved) < 1e-7 and distance(pulled, expected_pulled) < 1e-7
    d = derivative.diagnostics
    assert d.strict_complementarity[0] < 1e-9 and not d.differentiable[0]
    assert d.primal_unique[0] and d.dual_unique[0]


@pytest.mark.parametrize("name", ["redundant equality", "face of solutions"])
def test_one_derivative_warns_once(name):
    derivative = cd.solve(DEGENERATE[name][0]).derivative()
    n = derivative._stack.structure.n
    _, messages = caught(
        lambda: [derivative.vjp(dx=np.ones(n)), derivative.vjp(dx=np.ones(n)), derivative.jvp(dc=np.ones(n))]
    )
    assert len(messages) == 1
    # Nor does a batch warn once for each element.
    batch = cd.solve_batch([DEGENERATE[name][0]] * 3)
    _, messages = caught(lambda: batch.derivative().vjp(dx=np.ones((3, n))))
    assert len(messages) == 1


def test_the_text_of_the_warning_does_not_depend_on_the_elements():
    """Python's own filter is by text and line: it applies only if the text is the same for every batch."""
    good = cd.ConeProgram([[-1, -1], [-1, 0], [0, -1]], [-1, 0, 0], [1, 2], {"l": 3})
    bad, texts = DEGENERATE["face of solutions"][0], set()
    for programs in ([bad], [good, bad], [bad] * 7):
        derivative = cd.solve_batch(programs).derivative()
        g = np.ones((len(programs), 2))
        _, messages = caught(lambda d=derivative, g=g: d.vjp(dx=g))
        texts.update(messages)
        expected = [program is bad for program in programs]
        np.testing.assert_array_equal(derivative.diagnostics.degenerate, expected)
    assert len(texts) == 1 and not any(character.isdigit() for character in texts.pop())


def test_a_layer_warns_once_for_each_cause():
    x, p = cp.Variable(2), cp.Parameter(2)
    kinked = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]), [p], [x])
    flat = cd.CvxpyLayer(cp.Problem(cp.Minimize(p @ x), [x >= 0, cp.sum(x) == 1]), [p], [x])

    def train(layer, values):
        counts = []
        for _ in range(3):
            solution = layer.solve(values)
            assert solution.info["degenerate"] == 0
            solution.vjp(np.ones((4, 2)))
            solution.jvp(np.ones((4, 2)))
            counts.append((solution.info["degenerate"], layer.info["degenerate"]))
        return counts

    values = np.array([[1.0, 2.0], [0.0, 2.0], [1.0, 3.0], [0.0, 0.0]])
    counts, messages = caught(lambda: train(kinked, values))
    assert counts == [(2, 2)] * 3 and len(messages) == 1 and "strict complementarity" in messages[0]
    counts, messages = caught(lambda: train(flat, np.array([[1.0, 2.0], [1.0, 1.0], [3.0, 1.0], [2.0, 2.0]])))
    assert counts == [(2, 2)] * 3 and len(messages) == 1 and "not unique" in messages[0]


def test_a_warning_that_is_an_error_is_raised_at_every_call():
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]), [p], [x])
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.DegeneracyWarning)
        for _ in range(2):
            with pytest.raises(cd.DegeneracyWarning):
                layer.solve(np.zeros(2)).vjp(np.ones(2))


def test_only_the_degenerate_elements_of_a_batch_leave_the_direct_way():
    good = cd.ConeProgram([[-1, -1], [-1, 0], [0, -1]], [-1, 0, 0], [1, 2], {"l": 3})
    bad = DEGENERATE["face of solutions"][0]
    derivative = cd.solve_batch([good, bad, good]).derivative()
    _, messages = caught(lambda: derivative.vjp(dx=np.ones((3, 2))))
    assert len(messages) == 1
    d = derivative.diagnostics
    np.testing.assert_array_equal(d.degenerate, [False, True, False])
    assert list(d.reports) == [1]
    np.testing.assert_array_equal(d.primal_unique, [True, False, True])
    np.testing.assert_array_equal(d.differentiable, [True, False, True])


def test_case_j_a_linear_program_has_derivative_zero():
    A = np.vstack([np.ones((1, 3)), -np.eye(3)])
    solution = cd.solve(cd.ConeProgram(A, [1, 0, 0, 0], [-0.1, -0.2, 0.1], {"z": 1, "l": 3}))
    np.testing.assert_allclose(solution.x, [0, 1, 0], atol=1e-9)
    for method in ("auto", "direct", "lsqr", "lsmr", "dense"):
        derivative = solution.derivative(method)
        np.testing.assert_allclose(derivative.vjp(dx=[1.0, 2.0, 3.0]).dc, 0, atol=1e-9)
        np.testing.assert_allclose(derivative.jvp(dc=[1.0, 2.0, 3.0])[0], 0, atol=1e-9)
        assert derivative.diagnostics.differentiable[0]


def test_directly_a_singular_system_is_reported():
    derivative = cd.solve(DEGENERATE["redundant equality"][0]).derivative("direct")
    with pytest.warns(cd.AccuracyWarning, match="singular"):
        derivative.vjp(dy=np.ones(3))


def test_a_cotangent_in_the_range_is_exact_in_spite_of_redundant_rows():
    """x is unique and smooth in b along the range of A: the derivative is that without the row."""
    p = DEGENERATE["redundant equality"][0]
    full, _ = caught(lambda: cd.solve(p).derivative().vjp(dx=np.arange(5.0)))
    A = p.A.toarray()[:2]
    short = cd.solve(cd.ConeProgram(A, p.b[:2], p.c, {"z": 2}, np.eye(5))).derivative().vjp(dx=np.arange(5.0))
    np.testing.assert_allclose(full.dc, short.dc, atol=1e-8)
    # Moving b2 along with b0 + b1 is moving the constraints together.
    np.testing.assert_allclose(full.db[:2] + full.db[2], short.db, atol=1e-8)


def outside(seed):
    """A random program whose n is too large, or too small, for a unique solution; and what is unique."""
    rng = np.random.default_rng(seed)
    while True:
        cones = CONES["mixed"] if seed % 3 == 0 else random_cones(rng)
        cone = ProductCone.from_dict(cones)
        v = 2 * rng.standard_normal(cone.dim)
        if cone.project_dual(v).derivative().margin < 1e-2:
            continue
        rank = int(rng.integers(0, 3))
        least, most = sizes(cone, v, rank)
        n = most + int(rng.integers(1, 3)) if seed % 2 else least - int(rng.integers(1, 3))
        if not n >= 1:
            continue
        rank = min(rank, n)
        A, P = rng.standard_normal((cone.dim, n)), quadratic(rng, n, rank)
        values, vectors = np.linalg.eigh(slopes(cone, v))
        # Degenerate, but not nearly so in other directions.
        singular = np.linalg.svd(jacobian(A, P, slopes(cone, v)), compute_uv=False)
        if ((singular > 1e-11) & (singular < 1e-3)).any():
            continue
        face, roots = vectors[:, values > 1 - 1e-9], np.sqrt(np.maximum(values, 0))
        primal = np.linalg.matrix_rank(np.vstack([P, (vectors * roots).T @ A]), tol=1e-7) == n
        dual = np.linalg.matrix_rank(A.T @ face, tol=1e-7) == face.shape[1]
        return program(v, rng.standard_normal(n), A, P if rank else None, cones), primal, dual


@pytest.mark.parametrize("seed", range(24))
def test_random_degenerate_programs(seed):
    known, primal, dual = outside(seed)
    assert not (primal and dual)
    solution = known.at_solution(tol=1e-11)
    d = solution.derivative().diagnostics
    assert (bool(d.primal_unique[0]), bool(d.dual_unique[0])) == (primal, dual)
    (moved, pulled, _), messages = caught(lambda: modes(solution, "auto"))
    assert messages
    (expected_moved, expected_pulled, _), _ = caught(lambda: modes(solution, "dense"))
    assert distance(moved, expected_moved) < 1e-7
    assert distance(pulled, expected_pulled) < 1e-7


@pytest.mark.parametrize("seed", range(1, 12, 2))
def test_what_is_unique_moves_as_it_must(seed):
    """Where x is not unique y and s may be: forward mode knows them, along a curve of solutions."""
    known, _, dual = outside(seed)
    if not dual:
        pytest.skip("the dual is not unique either")
    tangent = curve(np.random.default_rng(32), known)
    moved, _ = caught(lambda: known.at_solution(tol=1e-11).derivative().jvp(*tangent.data))
    assert distance(moved[1:2], [tangent.dy]) < 1e-6


def test_scale_does_not_decide_what_is_degenerate():
    """The same program in other units."""
    good = cd.ConeProgram([[-1, -1], [-1, 0], [0, -1]], [-1, 0, 0], [1, 2], {"l": 3})
    for size in (1e-6, 1e-3, 1e3, 1e6):
        for scaled in (
            cd.ConeProgram(good.A * size, good.b, good.c, good.cones),
            cd.ConeProgram(good.A, good.b * size, good.c, good.cones),
            cd.ConeProgram(good.A, good.b, good.c * size, good.cones),
        ):
            d = cd.solve(scaled, max_iters=100_000).derivative().diagnostics
            assert d.differentiable[0], (size, d)


def test_cotangent_of_a_degenerate_program_scales():
    solution = cd.solve(DEGENERATE["face of solutions"][0])
    reference, _ = caught(lambda: solution.derivative().vjp(dx=[1.0, -2.0]))
    for scale in (1e-300, 1e-20, 1e20, 1e300):
        pulled, _ = caught(lambda scale=scale: solution.derivative().vjp(dx=[scale, -2 * scale]))
        assert distance([dense(part) / scale for part in pulled], reference) < 1e-9


def test_cotangent_helper_is_of_the_right_shape():
    known, _, _ = outside(1)
    assert [part.size for part in cotangent(RNG, known)] == [
        known.program.n,
        known.program.m,
        known.program.m,
    ]


SMOOTH = {
    "softmax": lambda x, p: (-p @ x - cp.sum(cp.entr(x)), [cp.sum(x) == 1]),
    "entropic projection": lambda x, p: (cp.sum_squares(x - p) / 50 - cp.sum(cp.entr(x)), [cp.sum(x) == 1]),
    "log-sum-exp with a ridge": lambda x, p: (cp.log_sum_exp(x) - p @ x + cp.sum_squares(x) / 100, []),
    "norm of order 3": lambda x, p: (cp.pnorm(x - p, 3) + cp.sum_squares(x) / 2, []),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("seed", range(4))
def test_elements_near_a_kink_do_not_matter_to_their_batch(name, seed):
    """Logits of size 8: in some elements the smallest entry is near a kink of the exponential cone and
    singular on one side of it, at positions that the seed decides. Each derivative is as if alone."""
    x, p = cp.Variable(3), cp.Parameter(3)
    objective, constraints = SMOOTH[name](x, p)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), [p], [x])
    rng = np.random.default_rng(seed)
    values, g, t = (
        8 * rng.standard_normal((32, 3)),
        rng.standard_normal((32, 3)),
        rng.standard_normal((32, 3)),
    )
    solution = layer.solve(values)
    ((pulled,), (pushed,)), _ = caught(lambda: (solution.vjp(g), solution.jvp(t)))
    for k in range(32):
        alone = layer.solve(values[k])
        ((one,), (other,)), _ = caught(lambda k=k, alone=alone: (alone.vjp(g[k]), alone.jvp(t[k])))
        np.testing.assert_allclose(pulled[k], one, atol=1e-8 * np.abs(pulled).max())
        np.testing.assert_allclose(pushed[k], other, atol=1e-8 * np.abs(pushed).max())

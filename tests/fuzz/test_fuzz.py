"""The public entry points with inputs of any kind: an answer that holds, or an error of the library's own.

As part of the suite every test runs a fixed set of examples, a minute in all. For an hour of new ones:
``CONEDIFF_FUZZ=60 python -m pytest -q -m fuzz``.
"""

import contextlib
import copy
import os
import pickle
from functools import cache

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import conediff as cd
import conediff.compat as diffcp
from tests.fuzz.inputs import JUNK, SETTINGS, any_cones, cones, laid_out, matrices, numbers
from tests.fuzz.judge import Refused, check_adjoint, check_solved, watched

# Programs that no solver solves would otherwise take seconds each.
BRIEF = {"time_limit_secs": 0.3}
EFFORT = int(os.environ.get("CONEDIFF_FUZZ", "1"))


def fuzz(examples):
    """Settings of a test: this many examples, always the same ones unless more are asked for."""
    return settings(
        max_examples=examples * EFFORT,
        derandomize=EFFORT == 1,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if EFFORT > 1 else [])),
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def allowed(capfd):
    """An error of ours ends the example."""
    with contextlib.suppress(Refused), watched(capfd) as caught:
        yield caught


@st.composite
def programs(draw, wild=True):
    """Arguments of ConeProgram whose shapes mostly fit."""
    dictionary, m = draw(cones())
    n = draw(st.integers(1, 4)) if draw(st.integers(0, 9)) else 0
    if wild and draw(st.integers(0, 9)) == 0:
        m += draw(st.integers(-1, 1))
    A = draw(matrices((max(m, 0), n), wild))
    b, c = (draw(laid_out(draw(numbers((max(size, 0),), wild)))) for size in (m, n))
    P = None
    kind = draw(st.integers(0, 5))
    if kind == 1:
        P = draw(matrices((n, n), wild))
    elif kind > 1:
        root = draw(numbers((n, n), False))
        P = (root.T @ root + np.eye(n)) if kind > 2 else root.T @ root
        P = sp.csr_array(P) if draw(st.booleans()) else P
    return [A, b, c, dictionary, P]


@fuzz(150)
@given(st.data())
def test_any_arguments_of_a_program(capfd, data):
    arguments = data.draw(programs())
    arguments[3] = data.draw(any_cones(arguments[3]))
    if data.draw(st.booleans()):
        arguments[data.draw(st.sampled_from([0, 1, 2, 4]))] = data.draw(JUNK)
    with allowed(capfd) as caught:
        program = cd.ConeProgram(*arguments)
        assert program.A.shape == (program.m, program.n)
        solve_and_differentiate(program, {}, caught)


@fuzz(60)
@given(programs(wild=False), SETTINGS)
def test_any_program_with_any_settings(capfd, arguments, chosen):
    with allowed(capfd) as caught:
        program = cd.ConeProgram(*arguments)
        solve_and_differentiate(program, chosen, caught)


def solve_and_differentiate(program, chosen, caught):
    """Solve, check what is called solved, differentiate, and check shapes, types and the adjoint identity."""
    solution = cd.solve(program, **{**BRIEF, **chosen})
    loose = {"refine", "tol", "eps", "eps_abs", "eps_rel", "time_limit_secs"} & set(chosen)
    if solution.status == "solved" and not loose:
        check_solved(program, solution)
    assert solution.status in ("solved", "inaccurate", "failed", "infeasible", "unbounded")
    if solution.status not in ("solved", "inaccurate"):
        return
    rng, (n, m) = np.random.default_rng(0), (program.n, program.m)
    D = pickle.loads(pickle.dumps(copy.deepcopy(solution))).derivative()
    change = [rng.standard_normal(shape) for shape in ((n, n), (m, n), (m,), (n,))]
    change[0] = (change[0] + change[0].T) * (program.P.toarray() != 0)
    change[1] *= program.A.toarray() != 0
    weights = [rng.standard_normal(k) for k in (n, m, m)]
    moved, pulled = D.jvp(*change), pickle.loads(pickle.dumps(D)).vjp(*weights)
    assert [part.shape for part in moved] == [(n,), (m,), (m,)]
    assert [part.shape for part in pulled] == [(n, n), (m, n), (m,), (n,)]
    pulled = [part.toarray() if sp.issparse(part) else part for part in pulled]
    told = any(issubclass(w.category, cd.AccuracyWarning) for w in caught)
    check_adjoint(list(zip(pulled, change, strict=True)), list(zip(weights, moved, strict=True)), told)


@fuzz(60)
@given(st.data())
def test_any_arguments_of_a_batch(capfd, data):
    arguments = data.draw(programs(wild=False))
    count = data.draw(st.integers(0, 3))
    with allowed(capfd):
        program = cd.ConeProgram(*arguments)
        widths = {"P": program.P.nnz, "A": program.A.nnz, "b": program.m, "c": program.n}
        given = {}
        for name in data.draw(st.sets(st.sampled_from(["P", "A", "b", "c"]), max_size=2)):
            rows = laid_out(data.draw(numbers((count, widths[name]))))
            given[name] = data.draw(rows if data.draw(st.integers(0, 4)) else JUNK)
        solutions = cd.solve_batch(program, on_failure="nan", **BRIEF, **given)
        B = len(solutions)
        assert solutions.x.shape == (B, program.n) and solutions.status.shape == (B,)
        D = solutions.derivative()
        good = np.isin(solutions.status, ["solved", "inaccurate"])
        pulled = D.vjp(data.draw(st.one_of(st.just(np.ones((B, program.n))), JUNK)))
        assert np.isfinite(pulled.db[good]).all() and np.isnan(pulled.dc[~good]).all()


@fuzz(60)
@given(programs(wild=False), st.data())
def test_any_arguments_of_a_derivative(capfd, arguments, data):
    with allowed(capfd):
        D = cd.solve(cd.ConeProgram(*arguments), **BRIEF).derivative(
            data.draw(st.one_of(st.sampled_from(["auto", "direct", "lsqr", "lsmr", "dense"]), JUNK))
        )
        n, m = len(arguments[2]), len(arguments[1])
        shapes = {"dP": (n, n), "dA": (m, n), "db": (m,), "dc": (n,)}
        chosen = data.draw(st.sets(st.sampled_from(sorted(shapes))))
        D.jvp(**{k: data.draw(st.one_of(matrices(shapes[k]), JUNK)) for k in chosen})
        D.vjp(
            **{k: data.draw(st.one_of(laid_out(np.ones(n if k == "dx" else m)), JUNK)) for k in ("dx", "dy")}
        )


@fuzz(40)
@given(programs(), st.data())
def test_any_arguments_of_diffcp(capfd, arguments, data):
    A, b, c, dictionary, P = arguments
    mode = data.draw(st.sampled_from(["lsqr", "lsmr", "dense", "lpgd", "lpgd_left", "lpgd_right", "x", None]))
    with allowed(capfd):
        dictionary = data.draw(any_cones(dictionary))
        x, y, s, D, DT = diffcp.solve_and_derivative(A, b, c, dictionary, mode=mode, P=P, **BRIEF)
        assert x.ndim == y.ndim == s.ndim == 1 and len(y) == len(s)
        dA, db, dc = DT(np.ones(len(x)), np.zeros(len(y)), np.zeros(len(s)))
        assert dA.shape == (len(y), len(x)) and db.shape == y.shape and dc.shape == x.shape
        D(dA, db, dc)


def _least_squares():
    x, F, g = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + 0.1 * cp.norm1(x)), [x >= -1]), [F, g], [x]


def _entropy():
    x, s, t = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    return cp.Problem(cp.Maximize(s @ x + cp.sum(cp.entr(x)) - t), [cp.sum(x) == 1]), [s, t], [x]


def _matrix():
    X, C = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.trace(X) <= 1]), [C], [X]


def _cone():
    x, p, r = cp.Variable(2), cp.Parameter(2), cp.Parameter(pos=True)
    return cp.Problem(cp.Minimize(cp.norm(x - p)), [cp.norm(x) <= r, x[0] >= 0.5]), [p, r], [x]


LAYERS = {"least squares": _least_squares, "entropy": _entropy, "matrix": _matrix, "cone": _cone}


@cache
def layer(name, module):
    return module.CvxpyLayer(*LAYERS[name]())


@st.composite
def values(draw, shape):
    """Values of a parameter: mostly of the right shape, with up to two leading dimensions of a batch."""
    if draw(st.integers(0, 7)) == 0:
        return draw(JUNK)
    lead = draw(st.sampled_from([(), (), (2,), (1,), (0,), (2, 1), (3, 2, 2, 1)]))
    return draw(laid_out(draw(numbers((*lead, *shape)))))


@pytest.mark.parametrize("name", LAYERS)
@fuzz(40)
@given(data=st.data())
def test_any_values_of_a_layer(capfd, name, data):
    made = layer(name, cd)
    given = [data.draw(values(p.shape)) for p in LAYERS[name]()[1]]
    with allowed(capfd):
        solution = made.solve(*given, solver_args={**BRIEF, **data.draw(SETTINGS)})
        out = solution.values[0]
        assert isinstance(out, np.ndarray)
        tangents = solution.jvp(*(np.ones(np.shape(value)) for value in given))
        assert tangents[0].shape == out.shape
        cotangent = data.draw(st.one_of(st.just(np.ones(out.shape)), values(out.shape)))
        pulled = solution.vjp(cotangent)
        several = np.shape(cotangent)[: max(np.ndim(cotangent) - out.ndim, 0)]  # cotangents at once
        assert [part.shape for part in pulled] == [several + np.shape(value) for value in given]
        copy.deepcopy(made)
        pickle.loads(pickle.dumps(solution)).vjp(np.ones(out.shape))


@pytest.mark.parametrize("name", LAYERS)
@fuzz(25)
@given(data=st.data())
def test_any_tensors_of_a_torch_layer(capfd, name, data):
    torch = pytest.importorskip("torch")
    import conediff.torch

    made = layer(name, conediff.torch)
    dtypes = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.bool,
        torch.complex64,
    ]
    given = []
    for p in LAYERS[name]()[1]:
        value = data.draw(values(p.shape))
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and data.draw(st.integers(0, 9)):
            value = torch.tensor(value.copy())
            if data.draw(st.integers(0, 3)) == 0:
                value = value.to(data.draw(st.sampled_from(dtypes)))
            if value.is_floating_point() and data.draw(st.booleans()):
                value.requires_grad_()
        given.append(value)
    with allowed(capfd):
        (out,) = made(*given, solver_args={**BRIEF, **data.draw(SETTINGS)})
        assert isinstance(out, torch.Tensor)
        if out.requires_grad:
            out.sum().backward()

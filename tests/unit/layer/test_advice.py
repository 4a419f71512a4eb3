"""What messages advise works: each suggestion is carried out, and gives cvxpy's solution of the problem."""

from __future__ import annotations

import re
import warnings

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd

x = cp.Variable(2, name="x")
X = cp.Variable((2, 2), name="X")
p = cp.Parameter(2, name="p", value=np.array([1.0, -2.0]))
q = cp.Parameter(3, name="q", value=np.array([1.0, -0.5, 2.0]))
s = cp.Parameter(nonneg=True, name="s", value=2.0)
r = cp.Parameter(nonneg=True, name="r", value=0.3)
w = cp.Parameter(2, nonneg=True, name="w", value=np.array([0.5, 3.0]))
A = cp.Parameter((2, 2), name="A", value=np.array([[1.0, 0.3], [-0.4, 2.0]]))
S = cp.Parameter((2, 2), PSD=True, name="S", value=np.array([[2.0, 0.5], [0.5, 1.0]]))
d, t = cp.Variable(2, name="d"), cp.Variable(name="t")
C = np.array([[1.0, 2.0], [0.0, -1.0]])


def new(value, name, **attributes):
    value = np.asarray(value)
    return cp.Parameter(value.shape, name=name, value=value, **attributes)


def layer_of(objective, constraints=()):
    """The layer, at the values that the parameters hold, and the variables."""
    problem = cp.Problem(cp.Minimize(objective + cp.sum_squares(x - 1)), list(constraints))
    variables = problem.variables()
    layer = cd.CvxpyLayer(problem, problem.parameters(), variables)
    return dict(
        zip((v.name() for v in variables), layer(*(v.value for v in problem.parameters())), strict=True)
    )


def direct(objective):
    """cvxpy's solution, in which parameters are constants."""
    problem = cp.Problem(cp.Minimize(objective + cp.sum_squares(x - 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return {v.name(): v.value for v in problem.variables()}


# What was written; what the message says; what is written then.
CASES = {
    "a weight on a distance": (
        s * cp.sum_squares(x - p),
        "introduce a variable d with d == x - p, and write s * sum_squares(d)",
        lambda: (s * cp.sum_squares(d), [d == x - p]),
    ),
    "weights on distances": (
        cp.sum(cp.multiply(w, cp.abs(x - p))),
        "a variable d with d == x - p, and write w * abs(d)",
        lambda: (cp.sum(cp.multiply(w, cp.abs(d))), [d == x - p]),
    ),
    "a weight on a residual": (
        s * cp.norm(A @ x - p),
        "a variable d with d == A @ x - p, and write s * norm(d)",
        lambda: (s * cp.norm(d), [d == A @ x - p]),
    ),
    "an affine factor": (
        cp.norm(s * (x - p)),
        "a variable d with d == x - p, and write s * d",
        lambda: (cp.norm(s * d), [d == x - p]),
    ),
    "two distances": (
        s * (cp.sum_squares(x - p) + cp.norm1(x - 2 * p)),
        "variables d1, d2 with d1 == x - p and d2 == x - (2.0 * p), and write s * (sum_squares(d1) + ",
        lambda: (
            s * (cp.sum_squares(d) + cp.norm1(e := cp.Variable(2))),
            [d == x - p, e == x - 2 * p],
        ),
    ),
    "a curved factor with parameters": (
        s * (cp.sum_squares(x) + r * cp.norm1(x)),
        "a variable t with t >= sum_squares(x) + r * norm1(x), and write s * t",
        lambda: (s * t, [t >= cp.sum_squares(x) + r * cp.norm1(x)]),
    ),
    "a concave factor with parameters": (
        -s * (cp.sum(cp.log(x)) + r * cp.sqrt(x[0])),
        "a variable t with t <= sum(log(x)) + r * ",
        lambda: (-s * t, [t <= cp.sum(cp.log(x)) + r * cp.sqrt(x[0])]),
    ),
    "a name that is taken": (
        s * cp.sum_squares(d - p) + cp.sum_squares(d - x),
        "a variable d1 with d1 == d - p",
        lambda: (s * cp.sum_squares(e := cp.Variable(2)) + cp.sum_squares(d - x), [e == d - p]),
    ),
    "the square of a parameter": (
        s**2 * cp.sum(x),
        "a parameter for the square of s",
        lambda: (new(s.value**2, "s2") * cp.sum(x), []),
    ),
    "a parameter times itself": (
        s * s * cp.sum_squares(x),
        "a parameter for the square of s",
        lambda: (new(s.value**2, "s2", nonneg=True) * cp.sum_squares(x), []),
    ),
    "the product of two": (
        cp.sum_squares(x - A @ p),
        "a parameter for the product A @ p",
        lambda: (cp.sum_squares(x - new(A.value @ p.value, "Ap")), []),
    ),
    "a function of a parameter": (
        cp.exp(r) * cp.sum(x),
        "a parameter whose value is exp(r)",
        lambda: (new(np.exp(r.value), "e") * cp.sum(x), []),
    ),
    "a quotient": (
        cp.sum_squares(x / s),
        "a parameter for the reciprocal of s and multiply",
        lambda: (cp.sum_squares(new(1 / s.value, "o") * x), []),
    ),
    "a quadratic over a parameter": (
        cp.quad_over_lin(x, s),
        "a nonneg parameter r for the reciprocal of s and write r * sum_squares(x)",
        lambda: (new(1 / s.value, "o", nonneg=True) * cp.sum_squares(x), []),
    ),
    "a quadratic form of a distance": (
        cp.quad_form(x - p, S),
        "a variable that equals x",
        lambda: (cp.quad_form(d, S), [d == x - p]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_advice_works(name):
    written, advice, rewritten = CASES[name]
    with pytest.raises(cd.DPPError, match=re.escape(advice)):
        layer_of(written)
    expected, found = direct(written), layer_of(*rewritten())
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5)


column = cp.Variable((2, 1), name="column")
P1 = cp.Parameter((3, 1), name="P1", value=np.array([[1.0], [2.0], [-1.0]]))
# Atoms that cvxpy does not canonicalise with parameters.
ATOMS = {
    "kron(P, X)": lambda: cp.kron(A, X),
    "kron(X, P)": lambda: cp.kron(X, A),
    "kron of an expression": lambda: cp.kron(A + 1, X),
    "kron of two parameters": lambda: cp.kron(C, A) + cp.kron(C, X),
    "not square": lambda: cp.kron(P1, X),
    "convolve": lambda: cp.convolve(q, x),
    "convolve of expressions": lambda: cp.convolve(2 * q, x - 1),
}


@pytest.mark.parametrize("name", ATOMS)
def test_the_products_that_are_written_out_work(name):
    """The code of the message is run."""
    atom = ATOMS[name]()
    rest = cp.sum_squares(X - 0.5)
    with pytest.raises(cd.DPPError, match=r"takes no parameters, .* products out: ") as caught:
        layer_of(cp.sum_squares(atom - 1) + rest)
    code = re.search(r"products out: (.*?)(, where C is the constant)?\.$", str(caught.value))[1]
    names = {leaf.name(): leaf for leaf in (x, X, q, A, P1)}
    written = eval(code, {"np": np, "C": C, "bmat": cp.bmat, **names})
    if name == "kron of two parameters":
        written = written + cp.kron(C, X)
    found, expected = layer_of(cp.sum_squares(written - 1) + rest), direct(cp.sum_squares(atom - 1) + rest)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-6)


def test_the_convolution_of_columns():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy prefers convolve
        atom = cp.conv(P1, column)
    written = sum(P1[i, 0] * (np.eye(4, 2, -i) @ column) for i in range(3))
    with pytest.raises(
        cd.DPPError, match=re.escape("sum(P1[i, 0] * (np.eye(4, 2, -i) @ column) for i in range(3)")
    ):
        layer_of(cp.sum_squares(atom - 1))
    expected, found = direct(cp.sum_squares(atom - 1)), layer_of(cp.sum_squares(written - 1))
    np.testing.assert_allclose(found["column"], expected["column"], atol=1e-6)

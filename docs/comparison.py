"""Print the tables of comparison.md: conediff beside cvxpylayers, both through PyTorch at default settings.

Run it with ``python docs/comparison.py`` where the ``bench`` extra and PyTorch are installed.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version

import cvxpy as cp
import torch
from cvxpylayers.torch import CvxpyLayer as Theirs

from conediff.torch import CvxpyLayer as Ours

torch.set_default_dtype(torch.float64)
warnings.simplefilter("ignore")


def gradients(make, *values, outputs=0, weights=None):
    """Return the gradients of a combination of one output in all parameters, or the name of the error."""
    try:
        tensors = [torch.as_tensor(value).clone().requires_grad_() for value in values]
        out = make()(*tensors)[outputs]
        ((out if weights is None else weights * out).sum()).backward()
        return [tensor.grad for tensor in tensors]
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


def error(found, exact):
    """Return the relative error, or the name of the error."""
    if isinstance(found, str):
        return found
    if any(part is None for part in found):
        return "no gradient"
    off = torch.cat([(a - b).ravel() for a, b in zip(found, exact, strict=True)])
    return f"{off.norm() / torch.cat([b.ravel() for b in exact]).norm():.1e}"


def quadratic_program(Layer):
    """Gradients of a QP, n = 10; exact ones from the linear system of the active constraints."""
    torch.manual_seed(0)
    n, m = 10, 5
    x, q, A, b = cp.Variable(n), cp.Parameter(n), cp.Parameter((m, n)), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2 + q @ x), [A @ x == b])
    values, w = (torch.randn(n), torch.randn(m, n), torch.randn(m)), torch.randn(n)
    q_v, A_v, b_v = (value.clone().requires_grad_() for value in values)
    K = torch.cat([torch.cat([torch.eye(n), A_v.T], 1), torch.cat([A_v, torch.zeros(m, m)], 1)])
    (w * torch.linalg.solve(K, torch.cat([-q_v, b_v]))[:n]).sum().backward()
    exact = [q_v.grad, A_v.grad, b_v.grad]
    return error(gradients(lambda: Layer(problem, [q, A, b], [x]), *values, weights=w), exact)


def dual_variable(Layer):
    """Gradient of the dual of A x = b in least norm: nu = -(A A')^-1 b."""
    torch.manual_seed(1)
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    equal = A @ x == b
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2), [equal])
    values = torch.randn(2, 3), torch.randn(2)
    A_v, b_v = (value.clone().requires_grad_() for value in values)
    (-torch.linalg.solve(A_v @ A_v.T, b_v)).sum().backward()
    make = lambda: Layer(problem, [A, b], [equal.dual_variables[0]])  # noqa: E731
    return error(gradients(make, *values), [A_v.grad, b_v.grad])


def power_cone(Layer):
    """Gradient through a power cone: the factory of the gallery, capital = 0.3 budget / price."""
    capital, labour, output = cp.Variable(), cp.Variable(), cp.Variable()
    prices = cp.Parameter(2, nonneg=True)
    made = cp.constraints.PowCone3D(capital, labour, output, 0.3)
    problem = cp.Problem(cp.Maximize(output), [made, prices @ cp.hstack([capital, labour]) <= 2])
    value = torch.tensor([1.5, 1.0])
    exact = [torch.tensor([-0.3 * 2 / 1.5**2, 0.0])]
    return error(gradients(lambda: Layer(problem, [prices], [capital]), value), exact)


def small_loss(Layer):
    """Gradient of a loss times 1e-9, for the projection onto the simplex."""
    x, p = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1, x >= 0])
    weights = 1e-9 * torch.tensor([1.0, 0.0, 0.0])
    exact = [1e-9 * torch.tensor([0.5, -0.5, 0.0])]
    found = gradients(lambda: Layer(problem, [p], [x]), torch.tensor([0.9, 0.7, -1.0]), weights=weights)
    return error(found, exact)


def psd_parameter(Layer):
    """Gradient by P of the minimiser of x'Px / 2 - 1'x: x = P^-1 1."""
    x, P = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
    value = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]])
    inverse = torch.linalg.inv(value)
    outer = -torch.outer(inverse.sum(1), inverse @ torch.ones(3))
    make = lambda: Layer(cp.Problem(cp.Minimize(cp.quad_form(x, P) / 2 - cp.sum(x))), [P], [x])  # noqa: E731
    return error(gradients(make, value), [(outer + outer.T) / 2])


def bad_element(Layer):
    """A batch of three with one infeasible element: the gradient of the others."""
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    more = {"solver_args": {"on_failure": "nan"}} if Layer is Ours else {}
    values = torch.tensor([[0.1, 0.2], [2.0, 2.0], [0.3, 0.1]])
    weights = torch.tensor([[1.0], [0.0], [1.0]])
    make = lambda: lambda t: [Layer(problem, [p], [x], **more)(t)[0][[0, 2]]]  # noqa: E731
    found = gradients(make, values, weights=weights[[0, 2]])
    return error(found, [torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])])


def kink(Layer):
    """max(p, 0) at the kink p = 0: the gradient that is returned, and the warnings."""
    x, p = cp.Variable(1), cp.Parameter(1)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (slope,) = gradients(lambda: Layer(problem, [p], [x]), torch.zeros(1))
    said = {w.category.__name__ for w in caught} - {"DeprecationWarning"}  # NumPy's
    return f"{slope.item():.2g}, {', '.join(said) or 'no warning'}"


def projection(Layer):
    """The projection onto the nonnegative numbers, as a function of one tensor."""
    x, p = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    layer = Layer(problem, [p], [x])
    return lambda t: layer(t)[0]


def optimal_value(Layer):
    """The optimal value among the outputs."""
    x, p = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    return Layer(problem, [p], [problem.objective])(torch.ones(3))[0]


ones = torch.ones(3)
CASES = (quadratic_program, dual_variable, power_cone, small_loss, psd_parameter, bad_element, kink)
CALLS = {
    "two batch dimensions": lambda Layer: projection(Layer)(torch.ones(2, 4, 3)),
    "empty batch": lambda Layer: projection(Layer)(torch.ones(0, 3)),
    "dtype of the output for float32": lambda Layer: projection(Layer)(ones.float()).dtype,
    "optimal value as an output": optimal_value,
    "torch.func.jvp": lambda Layer: torch.func.jvp(projection(Layer), (ones,), (ones,)),
    "torch.func.jacrev": lambda Layer: torch.func.jacrev(projection(Layer))(ones),
    "torch.vmap": lambda Layer: torch.vmap(projection(Layer))(torch.ones(4, 3)),
    "torch.compile(fullgraph=True)": lambda Layer: torch.compile(
        projection(Layer), fullgraph=True, backend="eager"
    )(ones),
}


def outcome(call, Layer):
    """Return "yes", the name of the error, or the dtype that the call returned."""
    try:
        found = call(Layer)
    except Exception as error:
        return f"{type(error).__name__}"
    return str(found) if isinstance(found, torch.dtype) else "yes"


if __name__ == "__main__":
    print(f"cvxpylayers {version('cvxpylayers')}, diffcp {version('diffcp')}, cvxpy {version('cvxpy')}\n")
    print("| gradient of | conediff | cvxpylayers |\n|---|---|---|")
    for case in CASES:
        print(f"| {case.__name__.replace('_', ' ')} | {case(Ours)} | {case(Theirs)} |")
    print("\n| call | conediff | cvxpylayers |\n|---|---|---|")
    for name, call in CALLS.items():
        print(f"| {name} | {outcome(call, Ours)} | {outcome(call, Theirs)} |")

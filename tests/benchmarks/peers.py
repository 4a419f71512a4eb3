"""The libraries, each behind the same four steps, so that only solving and differentiating are timed."""

from __future__ import annotations

import importlib.metadata
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from tests.benchmarks.problems import Case, Values


class Peer(Protocol):
    """A problem in the hands of a library."""

    def prepare(self, values: Values) -> Any:
        """Bring parameters to the form in which a user of the library has them."""

    def forward(self, prepared: Any, warm: bool) -> Any:
        """Solve."""

    def backward(self, solved: Any, cotangents: Values) -> Any:
        """Differentiate."""

    def answer(self, prepared: Any, solved: Any, gradient: Any) -> tuple[Values, Values]:
        """Return the variables' values, and the gradient with respect to the parameters."""


class _Torch:
    """A layer between tensors."""

    def prepare(self, values: Values) -> Any:
        import torch

        return [torch.tensor(value, requires_grad=True) for value in values]

    def backward(self, solved: Any, cotangents: Values) -> Any:
        import torch

        torch.autograd.backward(solved, [torch.from_numpy(cotangent) for cotangent in cotangents])

    def answer(self, prepared: Any, solved: Any, gradient: Any) -> tuple[Values, Values]:
        return tuple(x.detach().numpy() for x in solved), tuple(x.grad.numpy() for x in prepared)


class ConediffTorch(_Torch):
    """conediff's layer."""

    def __init__(self, case: Case) -> None:
        from conediff.torch import CvxpyLayer

        self._layer = CvxpyLayer(case.problem, case.parameters, case.variables)

    def forward(self, prepared: Any, warm: bool) -> Any:
        return self._layer(*prepared, solver_args={"warm_start": True} if warm else None)


class Cvxpylayers(_Torch):
    """cvxpylayers' layer, with diffcp."""

    solver: str | None = None

    def __init__(self, case: Case) -> None:
        from cvxpylayers.torch import CvxpyLayer

        self._layer = CvxpyLayer(case.problem, case.parameters, case.variables, solver=self.solver)

    def forward(self, prepared: Any, warm: bool) -> Any:
        return self._layer(*prepared, **({"warm_start": True} if warm else {}))


class CvxpylayersMoreau(Cvxpylayers):
    """cvxpylayers' layer, with Moreau."""

    solver = "MOREAU"


class Qpth(_Torch):
    """qpth's function, on the dense programs, whose parameters are its arguments."""

    def __init__(self, case: Case) -> None:
        from qpth.qp import QPFunction

        self._solve = QPFunction(verbose=False, check_Q_spd=False)

    def forward(self, prepared: Any, warm: bool) -> Any:
        L, *rest = prepared
        return (self._solve(L.transpose(1, 2) @ L, *rest),)


class _Core:
    """A cone program from cvxpy's own canonicalisation, one at a time; parameters reach b and c alone."""

    chain: str

    def __init__(self, case: Case) -> None:
        self._case = case

    def prepare(self, values: Values) -> Any:
        import cvxpy as cp
        from cvxpy.reductions.solvers.conic_solvers.scs_conif import dims_to_solver_dict

        for parameter, (value,) in zip(self._case.parameters, values, strict=True):
            parameter.value = value
        data, self._steps, self._inverse = self._case.problem.get_problem_data(getattr(cp, self.chain))
        self._maps = data["param_prob"]
        return data, dims_to_solver_dict(data["dims"])

    def cone_cotangent(self, cotangents: Values) -> Any:
        """Return the cotangent of the cone program's x for those of the variables."""
        variables = zip(self._case.variables, cotangents, strict=True)
        found = {variable.id: cotangent[0] for variable, cotangent in variables}
        for other in self._case.problem.variables():
            found.setdefault(other.id, np.zeros(other.shape))
        for step in self._steps.reductions:
            found = step.var_backward(found)
        return self._maps.split_adjoint(found)

    def _answer(self, x: Any, db: Any, dc: Any) -> tuple[Values, Values]:
        values = self._maps.split_solution(x)
        for step in reversed(self._steps.reductions):
            values = step.var_forward(values)
        # cvxpy's own adjoint refuses programs with P, though b and c are linear in parameters there too.
        change = self._maps.q[:-1].T @ dc + self._maps.A[-len(db) :].T @ db
        found = {
            p.id: change[(first := self._maps.param_id_to_col[p.id]) : first + p.size].reshape(
                p.shape, order="F"
            )
            for p in self._maps.parameters
        }
        for step in reversed(self._steps.reductions):
            found = step.param_backward(found)
        return (
            tuple(np.asarray(values[variable.id])[None] for variable in self._case.variables),
            tuple(np.asarray(found[parameter.id])[None] for parameter in self._case.parameters),
        )


class ConediffCore(_Core):
    """conediff on matrices."""

    chain = "SCS"

    def prepare(self, values: Values) -> Any:
        import conediff as cd

        data, cones = super().prepare(values)
        P = None if data.get("P") is None else sp.csc_matrix(data["P"])
        return cd.ConeProgram(data["A"], data["b"], data["c"], cones, P)

    def forward(self, prepared: Any, warm: bool) -> Any:
        import conediff as cd

        return cd.solve(prepared)

    def backward(self, solved: Any, cotangents: Values) -> Any:
        return solved.derivative().vjp(dx=self.cone_cotangent(cotangents))

    def answer(self, prepared: Any, solved: Any, gradient: Any) -> tuple[Values, Values]:
        _, _, db, dc = gradient
        return self._answer(solved.x, db, dc)


class DiffcpCore(_Core):
    """diffcp on matrices, the adjoint by LSQR, which is its default."""

    chain = "DIFFCP"

    def forward(self, prepared: Any, warm: bool) -> Any:
        import diffcp

        data, cones = prepared
        A = sp.csc_matrix(data["A"])
        return diffcp.solve_and_derivative(A, data["b"], data["c"], cones, mode="lsqr")

    def backward(self, solved: Any, cotangents: Values) -> Any:
        _, y, s, _, adjoint = solved
        return adjoint(self.cone_cotangent(cotangents), np.zeros(len(y)), np.zeros(len(s)))

    def answer(self, prepared: Any, solved: Any, gradient: Any) -> tuple[Values, Values]:
        _, db, dc = gradient
        return self._answer(solved[0], db, dc)


PEERS: dict[str, type[Any]] = {
    "conediff": ConediffTorch,
    "cvxpylayers": Cvxpylayers,
    "moreau": CvxpylayersMoreau,
    "qpth": Qpth,
    "conediff-core": ConediffCore,
    "diffcp": DiffcpCore,
}
NAMES = (
    "cvxpy",
    "cvxpylayers",
    "diffcp",
    "moreau",
    "qpth",
    "scs",
    "qdldl",
    "clarabel",
    "torch",
    "numpy",
    "scipy",
)
WARM = ("conediff", "moreau")  # who takes a warm start


def supports(peer: str, problem: str) -> bool:
    """Tell whether a peer can state a problem at all."""
    if peer == "qpth":
        return problem.startswith("qp-")
    return peer != "moreau" or not problem.startswith("correlation")  # it has no semidefinite cone


def versions() -> dict[str, str]:
    """Return the versions of what is installed here and takes part."""
    found = {}
    for name in NAMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import conediff

    return {**found, "conediff": conediff.__version__}

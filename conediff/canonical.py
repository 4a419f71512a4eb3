"""A cvxpy problem in, its `ProblemMaps` out. The only module that imports cvxpy.

cvxpy's own chain of reductions is run once, without values for the parameters, and what it yields
is read off: tensors that are affine in the reduced parameters, and the way back from a cone solution.
Both are taken from cvxpy's code by sending numbered entries through it, rather than by repeating what
each reduction does; so they follow cvxpy's conventions whatever those are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.promote import Promote
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.finite_set import FiniteSet
from cvxpy.error import DCPError, DGPError, SolverError
from cvxpy.expressions.expression import Expression
from cvxpy.lin_ops.lin_op import CONSTANT_ID
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.solvers.conic_solvers.scs_conif import SCS
from cvxpy.utilities import scopes
from numpy.typing import NDArray

from conediff.cones import ProductCone
from conediff.errors import DPPError, ProblemError
from conediff.maps import AffineBlock, OutputSpec, ParameterSpec, ProblemMaps
from conediff.structure import Array, Pattern, Structure

# How cvxpy fails on what a reduction does not foresee, such as a parameter without a value.
_LOOKUPS = (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError, NotImplementedError)
_SYMMETRIC = ("symmetric", "PSD", "NSD")
_FLAGS = ("nonneg", "nonpos", "pos", "neg", "diag", "hermitian", "imag", "complex", *_SYMMETRIC)
# A linear map that is not a selection is probed a column at a time, up to this many.
_MOST_COLUMNS = 2000


def canonicalise(
    problem: cp.Problem, parameters: Sequence[Any], variables: Sequence[Any], gp: bool = False
) -> ProblemMaps:
    """Return the maps of a parametrised convex problem.

    Parameters
    ----------
    problem : cvxpy.Problem
        Left as it is: values, duals and caches. Its parameters need no values.
    parameters : list or tuple of cvxpy.Parameter
        All of the problem's parameters, in the order in which values will be given.
    variables : list or tuple
        The outputs wanted: variables of the problem, dual variables of its constraints
        (``constraint.dual_variables[0]``), or ``problem.objective`` for the optimal value.
    gp : bool
        Whether to read the problem as a geometric (log-log convex) program.

    Raises
    ------
    ValueError
        If the lists are not the problem's, or hold something twice.
    DPPError
        If the problem is not disciplined in its parameters.
    ProblemError
        If it cannot be used for another reason: not convex, mixed-integer, without variables, ...

    Notes
    -----
    For the while of this call the parameters have no value, so that cvxpy cannot take a value of today
    for a constant; so don't use the same problem in another thread meanwhile.
    """
    _check_lists(problem, parameters, variables)
    _check_kind(problem)
    _check_convex(problem, gp)
    _check_dpp(problem, gp)
    reduced = _reduce(problem, gp)
    specs = tuple(_parameter_spec(p, reduced) for p in parameters)
    fold = _parameter_map(parameters, specs, reduced)
    structure, cones, blocks = _data_maps(reduced.program, fold)
    return ProblemMaps(
        structure=structure,
        cones=cones,
        parameters=specs,
        outputs=_output_specs(problem, variables, reduced, structure),
        blocks=blocks,
        sense=-1.0 if isinstance(problem.objective, cp.Maximize) else 1.0,
        log_objective=gp,
    )


# ---------------------------------------------------------------------- what is refused


def _check_lists(problem: cp.Problem, parameters: Any, variables: Any) -> None:
    """Check that the lists hold what is the problem's, once each."""
    if not isinstance(problem, cp.Problem):
        raise TypeError(f"The layer's problem must be a cvxpy Problem, not {type(problem).__name__}.")
    if not isinstance(parameters, list | tuple):
        raise ValueError("The layer's parameters must be provided as a list or tuple.")  # noqa: TRY004
    if not isinstance(variables, list | tuple):
        raise ValueError("The layer's variables must be provided as a list or tuple.")  # noqa: TRY004
    own = {p.id: p for p in problem.parameters()}
    given = {getattr(p, "id", id(p)): p for p in parameters}
    missing = [_name(p) for key, p in own.items() if key not in given]
    extra = [_name(p) for key, p in given.items() if key not in own]
    if missing or extra:
        raise ValueError(
            "The layer's parameters must exactly match problem.parameters"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not the problem's: {', '.join(extra)}" if extra else "")
            + "."
        )
    known = {v.id for v in problem.variables()} | set(_dual_owners(problem))
    foreign = [_name(v) for v in variables if v is not problem.objective and _id(v) not in known]
    if foreign:
        raise ValueError(
            "The layer's variables must be a subset of problem.variables, of the dual variables of its "
            f"constraints, and problem.objective; not the problem's: {', '.join(foreign)}."
        )
    for kind, items in (("parameters", parameters), ("variables", variables)):
        keys = [_id(item) for item in items]
        twice = sorted({_name(item) for item, key in zip(items, keys, strict=True) if keys.count(key) > 1})
        if twice:
            raise ValueError(f"The layer's {kind} hold something more than once: {', '.join(twice)}.")


def _check_kind(problem: cp.Problem) -> None:
    """Refuse what is no continuous parametrised cone program."""
    if not problem.variables():
        raise ProblemError("The problem has no variables, so there is nothing to solve for.")
    if problem.is_mixed_integer() or any(isinstance(c, FiniteSet) for c in problem.constraints):
        raise ProblemError(
            "The problem has boolean, integer or finite-set variables, so its solution has no derivative: "
            "relax them, for example to bounds=[0, 1]."
        )
    for c in problem.constraints:
        alpha = getattr(c, "alpha", None)
        if alpha is not None and hasattr(alpha, "parameters") and alpha.parameters():
            raise ProblemError(f"The exponent of the power cone {c} is a parameter; it must be a constant.")
    for p in problem.parameters():
        if len(p.shape) > 2 and any(p.attributes[key] for key in (*_SYMMETRIC, "hermitian", "diag")):
            raise ProblemError(
                f"The parameter {p.name()} is a stack of structured matrices, which cvxpy cannot "
                "canonicalise: declare one parameter for each matrix."
            )


def _check_convex(problem: cp.Problem, gp: bool) -> None:
    """Refuse problems that are not DCP (or DGP), naming the first subexpression that is not."""
    if problem.is_dgp() if gp else problem.is_dcp():
        return
    rules = "DGP (log-log convex)" if gp else "DCP (convex)"
    where, culprit = _find(
        problem,
        fine=(lambda e: bool(e.is_dgp())) if gp else (lambda e: bool(e.is_dcp())),
        quad_form=False,
    )
    hint = ""
    if gp and problem.is_dcp():
        hint = " It is DCP: leave out gp=True."
    elif not gp and problem.is_dgp():
        hint = " It is DGP: pass gp=True."
    elif not gp and problem.is_dqcp():
        hint = " It is quasiconvex (DQCP), which takes a sequence of convex problems; that is not supported."
    raise ProblemError(f"Problem must be {rules}, but {where} is not{_because(where, culprit)}.{hint}")


def _check_dpp(problem: Any, gp: bool) -> None:
    """Refuse problems that are not DPP, naming the smallest subexpression that is not."""
    if gp:
        disciplined = problem.is_dpp("dgp")
    else:
        disciplined = problem.is_dpp("dcp", quad_form_dpp="qp")
    if not disciplined:
        context = "dgp" if gp else "dcp"
        where, culprit = _find(problem, fine=lambda e: bool(e.is_dpp(context)), quad_form=not gp)
        raise DPPError(
            f"Problem must be DPP, but {where} is not{_because(where, culprit)}. {_advice(culprit)}"
        )
    buried = None if gp else _buried_quad_form(problem.objective.expr)
    if buried is not None:
        raise DPPError(
            f"Problem must be DPP, but the objective {problem.objective} is not, because {buried} is "
            f"inside another nonlinear function. {_advice(buried)}"
        )


def _find(problem: cp.Problem, fine: Callable[[Any], bool], quad_form: bool) -> tuple[str, Any]:
    """Return where the problem breaks the rules, and the smallest subexpression that does.

    Where every subexpression keeps the rules it is their combination that does not: then the culprit
    is the whole objective or constraint.
    """
    for c in (problem.objective, *problem.constraints):
        objective = c is problem.objective
        with _quad_form_scope(quad_form and objective):
            if fine(c):
                continue
            where = f"the objective {c}" if objective else f"the constraint {c}"
            for arg in c.args:
                if not fine(arg):
                    return where, _smallest(arg, fine)
        return where, c
    bounded = [v for v in problem.variables() if not fine(v)]
    return f"a bound of the variable {bounded[0].name()}" if bounded else "the problem", problem.objective


@contextmanager
def _quad_form_scope(active: bool) -> Iterator[None]:
    """Let quad_form have a parametrised matrix, as solvers with quadratic objectives do."""
    if active:
        with scopes.quad_form_dpp_scope():
            yield
    else:
        yield


def _because(where: str, culprit: Any) -> str:
    if where.endswith(str(culprit)):
        return " (each part of it is, but not their combination)"
    return f", because of {culprit}"


def _smallest(expression: Any, fine: Callable[[Any], bool]) -> Any:
    for arg in expression.args:
        if not fine(arg):
            return _smallest(arg, fine)
    return expression


def _buried_quad_form(expression: Any, affine_above: bool = True) -> Any:
    """Return a quad_form with a parametrised matrix that does not enter the objective linearly.

    cvxpy's relaxed rule lets it pass, but then canonicalises it with the matrix's value of the moment.
    """
    if isinstance(expression, QuadForm) and expression.args[1].parameters() and not affine_above:
        return expression
    affine_here = affine_above and isinstance(expression, AffAtom)
    found = (_buried_quad_form(arg, affine_here) for arg in expression.args)
    return next((e for e in found if e is not None), None)


def _advice(culprit: Any) -> str:
    """Say how to rewrite an expression that is not DPP."""
    if isinstance(culprit, QuadForm):
        return (
            "Write quad_form(x, P) with P a PSD parameter, x without parameters (else a variable that equals "
            "it), and only as a term of the objective; or use sum_squares(L @ x) with a parameter L, P = L'L."
        )
    if isinstance(culprit, DivExpression):
        divisor = culprit.args[1]
        divisor = divisor.args[0] if isinstance(divisor, Promote) else divisor
        return f"Introduce a parameter for the reciprocal of {divisor}, and multiply by it."
    if isinstance(culprit, MulExpression | multiply):
        if not culprit.variables():
            return f"Introduce a parameter for the product {culprit}."
        return (
            f"In the product {culprit} both factors hold parameters: introduce a parameter for the product "
            "of the two, or a variable that equals the factor with the variables."
        )
    bent = _nonlinear_in_parameters(culprit)
    if bent is not None:
        return f"Introduce a parameter whose value is {bent}."
    return (
        "A parameter may only be added, or multiply something without parameters: introduce a parameter "
        "for each other function of parameters."
    )


def _nonlinear_in_parameters(expression: Any) -> Any:
    """Return the smallest subexpression that is a nonlinear function of parameters alone, or None."""
    for arg in expression.args:
        found = _nonlinear_in_parameters(arg)
        if found is not None:
            return found
    if expression.variables() or not isinstance(expression, Expression):
        return None
    with scopes.dpp_scope():
        return None if expression.is_affine() else expression


def _id(item: Any) -> int:
    return int(item.id) if isinstance(item, cp.Variable | cp.Parameter) else id(item)


def _name(item: Any) -> str:
    return str(item.name()) if isinstance(item, cp.Variable | cp.Parameter) else repr(item)


# ---------------------------------------------------------------------- cvxpy's reductions


class _ParametricSCS(SCS):
    """SCS as cvxpy sees it, except that the program stays a function of the parameters."""

    REQUIRES_CONSTR = False

    def name(self) -> str:
        # cvxpy wants names other than its own for solvers that are passed as objects.
        return "CONEDIFF"

    def supports_quad_obj(self) -> bool:
        return True

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Format the rows for SCS, and stop before any parameter value is read."""
        prepare: Any = self._prepare_data_and_inv_data
        _, data, inverse = prepare(problem)
        inverse[cp.settings.OFFSET] = 0.0
        return data, inverse


@dataclass(frozen=True, eq=False)
class _Reduced:
    """What cvxpy's chain made of a problem: the parametrised cone program, and the way back."""

    program: Any
    chain: Any
    inverse: list[Any]

    @property
    def logarithms(self) -> dict[Any, Any]:
        """Parameter -> the parameter that stands for its logarithm (geometric programs)."""
        for reduction in self.chain.reductions:
            if isinstance(reduction, Dgp2Dcp):
                return dict(reduction.canon_methods._parameters)
        return {}

    def parameter_entries(self, entries: dict[int, Any]) -> dict[int, Any]:
        """Send arrays from the user's parameters to the reduced ones; both are keyed by id."""
        for reduction in self.chain.reductions[:-1]:
            # Logarithms are features already.
            if not isinstance(reduction, Dgp2Dcp):
                entries = reduction.param_forward(entries)
        return entries

    def variable_entries(self, x: Array) -> dict[int, Any]:
        """Split x into the user's variables, keyed by id (their logarithms in geometric programs).

        Unlike `Chain.invert` this projects nothing onto the variables' attributes, so it is linear.
        """
        values: dict[int, Any] = self.program.split_solution(x)
        for reduction in reversed(self.chain.reductions[:-1]):
            if isinstance(reduction, Dgp2Dcp):
                logs = reduction.canon_methods._variables
                original = {new.id: old.id for old, new in logs.items()}
                values = {original.get(key, key): value for key, value in values.items()}
            else:
                values = reduction.var_forward(values)
        return values

    def dual_values(self, y: Array) -> dict[int, Any]:
        """Split y into the values of the constraints' duals, keyed by the constraints' ids."""
        info = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}
        raw = {"x": np.zeros(self.program.x.size), "y": y, "info": info}
        duals: dict[int, Any] = self.chain.invert(raw, self.inverse).dual_vars
        return duals


def _reduce(problem: cp.Problem, gp: bool) -> _Reduced:
    """Run cvxpy's chain for SCS with the quadratic objective kept."""
    # A problem of our own, so that the user's keeps its caches.
    copy = cp.Problem(problem.objective, problem.constraints)
    try:
        with _values_withheld(problem.parameters()), warnings.catch_warnings():
            # About backends and sparse values: nothing that the user could do better.
            warnings.simplefilter("ignore")
            data, chain, inverse = copy.get_problem_data(_ParametricSCS(), gp=gp, enforce_dpp=True)
    except (SolverError, DCPError, DGPError, *_LOOKUPS) as error:
        raise ProblemError(
            f"cvxpy cannot turn this problem into a parametrised cone program: {error}"
        ) from error
    program = data[cp.settings.PARAM_PROB]
    if program.cone_dims.pnd:
        raise ProblemError("cvxpy left a cone in the problem that SCS does not have.")
    return _Reduced(program, chain, inverse)


@contextmanager
def _values_withheld(parameters: Sequence[Any]) -> Iterator[None]:
    """Take the parameters' values away for a while.

    Were a reduction to use a value it would become a constant of the maps; so it is made to fail instead.
    """
    values = [p._value for p in parameters]
    for p in parameters:
        p._value = None
    try:
        yield
    finally:
        for p, value in zip(parameters, values, strict=True):
            p._value = value


# ---------------------------------------------------------------------- parameters


def _parameter_spec(p: Any, reduced: _Reduced) -> ParameterSpec:
    attributes = [key for key in _FLAGS if p.attributes[key]]
    attributes += [key for key in ("boolean", "integer") if p.attributes[key] is not False]
    lower = upper = None
    if p.attributes["bounds"] is not None:
        lower, upper = (_dense(bound) for bound in p.attributes["bounds"])
    pattern = None
    if p.sparse_idx is not None:
        attributes.append("sparsity")
        pattern = np.sort(np.ravel_multi_index(p.sparse_idx, p.shape)).astype(np.intp)
    elif p.attributes["diag"]:
        pattern = np.arange(p.shape[0], dtype=np.intp) * (p.shape[0] + 1)
    return ParameterSpec(
        name=p.name(),
        shape=tuple(int(k) for k in p.shape),
        complex=bool(p.is_complex()),
        log=p in reduced.logarithms,
        attributes=tuple(attributes),
        lower=lower,
        upper=upper,
        pattern=pattern,
    )


def _dense(bound: Any) -> Array:
    dense: Any = bound.toarray() if hasattr(bound, "toarray") else bound
    return np.asarray(dense, dtype=np.float64)


def _parameter_map(
    parameters: Sequence[Any], specs: Sequence[ParameterSpec], reduced: _Reduced
) -> sp.csr_array:
    """Return the map from the features to the parameter vector of the reduced program.

    Features are numbered from one, and the numbers sent through the reductions. Every reduced entry is
    one of the features of the symmetrised (or masked) value, so that the number it receives says which.
    """
    entries: dict[int, Any] = {}
    foldings = []
    start = 1
    for p, spec in zip(parameters, specs, strict=True):
        number = np.arange(start, start + spec.width, dtype=np.float64).reshape(spec.parts, *spec.shape)
        entries[p.id] = number[0] + 1j * number[1] if spec.complex else number[0]
        if spec.log:
            entries[reduced.logarithms[p].id] = number[1]
        foldings.append(_folding(spec))
        start += spec.width
    arrived = reduced.parameter_entries(entries)
    program = reduced.program
    source = np.empty(program.total_param_size, dtype=np.int64)
    for key, column in program.param_id_to_col.items():
        if key != CONSTANT_ID:
            numbers = np.asarray(arrived[key]).flatten(order="F")
            source[column : column + numbers.size] = np.rint(numbers.real) - 1
    select = sp.csr_array(
        (np.ones(source.size), source, np.arange(source.size + 1)), shape=(source.size, start - 1)
    )
    if all(f is None for f in foldings):
        return select
    identities = [sp.eye_array(s.width) if f is None else f for s, f in zip(specs, foldings, strict=True)]
    return sp.csr_array(select @ sp.block_diag(identities, format="csr"))


def _folding(spec: ParameterSpec) -> sp.csr_array | None:
    """Return the projection of a parameter's features onto its structure; None for the identity.

    (X + X')/2 for symmetric, (X + X*)/2 for Hermitian matrices, and zero outside of a sparsity pattern.
    The logarithms of a symmetric matrix are averaged likewise.
    """
    size = spec.size
    definite = "PSD" in spec.attributes or "NSD" in spec.attributes
    hermitian = "hermitian" in spec.attributes or (definite and spec.complex)
    if hermitian or definite or "symmetric" in spec.attributes:
        transposed = np.arange(size).reshape(spec.shape).T.ravel()
        swap = sp.csr_array((np.ones(size), (np.arange(size), transposed)), shape=(size, size))
        eye = sp.eye_array(size, format="csr")
        parts = [(eye + swap) / 2, (eye - swap if hermitian else eye + swap) / 2]
        return sp.block_diag(parts[: spec.parts], format="csr")
    if spec.pattern is not None:
        mask = np.zeros(size)
        mask[spec.pattern] = 1.0
        return sp.diags_array(np.tile(mask, spec.parts), format="csr")
    return None


# ---------------------------------------------------------------------- cone data


def _data_maps(program: Any, fold: sp.csr_array) -> tuple[Structure, dict[str, Any], tuple[AffineBlock, ...]]:
    """Turn cvxpy's tensors into maps from the features to the values of P, A, b, c and d.

    A row of a tensor is an entry of a matrix in column-major order, and its last column is constant.
    Of A the last column is the offset, which SCS calls b: Ax + b in K becomes (-A)x + s = b.
    """
    n = int(program.x.size)
    m = int(program.A.shape[0]) // (n + 1)
    entry, parameter, value = _coordinates(program.A)
    matrix = entry < n * m
    A, A_block = _sparse_map(m, n, entry[matrix], parameter[matrix], -value[matrix], fold)
    b_block = _dense_map(m, entry[~matrix] - n * m, parameter[~matrix], value[~matrix], fold)
    entry, parameter, value = _coordinates(program.q)
    linear = entry < n
    c_block = _dense_map(n, entry[linear], parameter[linear], value[linear], fold)
    d_block = _dense_map(1, entry[~linear] - n, parameter[~linear], value[~linear], fold)
    if program.P is None:
        entry = parameter = np.zeros(0, dtype=np.int64)
        value = np.zeros(0)
    else:
        entry, parameter, value = _coordinates(program.P)
    # Only the symmetric part of P matters; cvxpy gives it in either triangle, or in both.
    mirrored = np.concatenate([entry, entry % n * n + entry // n])
    P, P_block = _sparse_map(n, n, mirrored, np.tile(parameter, 2), np.tile(value / 2, 2), fold)
    dims = program.cone_dims
    cones = {
        "z": int(dims.zero),
        "l": int(dims.nonneg),
        "q": [int(k) for k in dims.soc],
        "s": [int(k) for k in dims.psd],
        "ep": int(dims.exp),
        "p": [float(a) for a in dims.p3d],
    }
    structure = Structure(P, A, ProductCone.from_dict(cones))
    return structure, cones, (P_block, A_block, b_block, c_block, d_block)


def _coordinates(tensor: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return the rows, columns and values of a tensor's nonzero entries."""
    coo = tensor.tocoo()
    nonzero = coo.data != 0
    rows, columns = coo.row[nonzero].astype(np.int64), coo.col[nonzero].astype(np.int64)
    return rows, columns, coo.data[nonzero].astype(np.float64)


def _dense_map(
    count: int, entry: NDArray[np.int64], parameter: NDArray[np.int64], value: Array, fold: sp.csr_array
) -> AffineBlock:
    """Return the affine map from the features to all ``count`` entries of a vector."""
    total, features = fold.shape
    fixed = parameter == total
    constant = np.bincount(entry[fixed], weights=value[fixed], minlength=count).astype(np.float64)
    moving = ~fixed
    tensor = sp.csr_array((value[moving], (entry[moving], parameter[moving])), shape=(count, total))
    matrix = sp.csc_array(tensor @ fold) if tensor.nnz else sp.csc_array((count, features))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return AffineBlock(matrix, constant)


def _sparse_map(
    rows: int,
    columns: int,
    entry: NDArray[np.int64],
    parameter: NDArray[np.int64],
    value: Array,
    fold: sp.csr_array,
) -> tuple[Pattern, AffineBlock]:
    """Return the pattern of a matrix, and the affine map from the features to the values stored in it."""
    stored, position = np.unique(entry, return_inverse=True)
    block = _dense_map(stored.size, position.ravel(), parameter, value, fold)
    # What cancelled is no entry of the matrix.
    kept = (np.bincount(block.matrix.indices, minlength=stored.size) > 0) | (block.constant != 0)
    if not kept.all():
        block = AffineBlock(sp.csc_array(block.matrix.tocsr()[kept]), block.constant[kept])
        stored = stored[kept]
    indptr = np.searchsorted(stored, np.arange(columns + 1, dtype=np.int64) * rows).astype(np.int32)
    indices = (stored % max(rows, 1)).astype(np.int32)
    return Pattern((rows, columns), indptr, indices), block


# ---------------------------------------------------------------------- outputs


def _dual_owners(problem: cp.Problem) -> dict[int, Any]:
    """Return the constraint that each dual variable belongs to, keyed by the dual variable's id."""
    return {dual.id: c for c in problem.constraints for dual in c.dual_variables}


def _output_specs(
    problem: cp.Problem, variables: Sequence[Any], reduced: _Reduced, structure: Structure
) -> tuple[OutputSpec, ...]:
    """Return where each output is read from the cone solution."""
    owners = _dual_owners(problem)
    primals = [v for v in variables if v is not problem.objective and v.id not in owners]
    duals = [v for v in variables if v is not problem.objective and v.id in owners]
    found = dict(zip(map(_id, primals), _primal_specs(primals, reduced, structure.n), strict=True))
    found.update(zip(map(_id, duals), _dual_specs(duals, owners, reduced, structure.m), strict=True))
    objective = OutputSpec("objective", "objective", ())
    return tuple(objective if v is problem.objective else found[v.id] for v in variables)


def _primal_specs(variables: Sequence[Any], reduced: _Reduced, n: int) -> list[OutputSpec]:
    def probe(x: Array) -> list[NDArray[Any]]:
        values = reduced.variable_entries(x)
        # What cvxpy eliminated (no entries, or nothing depends on it) is zero.
        return [_array(values.get(v.id, 0.0), v.shape) for v in variables]

    # Geometric programs are solved in the logarithms of their variables.
    gp = any(isinstance(r, Dgp2Dcp) for r in reduced.chain.reductions)
    maps = _linear_maps(probe, n, [v.name() for v in variables])
    return [
        OutputSpec(v.name(), "primal", shape, is_complex, gp, matrix)
        for v, (shape, is_complex, matrix) in zip(variables, maps, strict=True)
    ]


def _dual_specs(duals: Sequence[Any], owners: dict[int, Any], reduced: _Reduced, m: int) -> list[OutputSpec]:
    constraints = {c.id: c for c in (owners[dual.id] for dual in duals)}

    def probe(y: Array) -> list[NDArray[Any]]:
        values = reduced.dual_values(y)
        with _duals_kept(constraints.values()):
            for key, c in constraints.items():
                if key not in values:
                    raise ProblemError(f"cvxpy does not recover the dual variable of the constraint {c}.")
                c.save_dual_value(values[key])
            return [np.array(dual.value) for dual in duals]

    maps = _linear_maps(probe, m, [dual.name() for dual in duals]) if duals else []
    return [
        OutputSpec(dual.name(), "dual", shape, is_complex, False, matrix)
        for dual, (shape, is_complex, matrix) in zip(duals, maps, strict=True)
    ]


@contextmanager
def _duals_kept(constraints: Any) -> Iterator[None]:
    """Give the constraints' dual variables back the values that they had."""
    kept = [(dual, dual.value) for c in constraints for dual in c.dual_variables]
    try:
        yield
    finally:
        for dual, value in kept:
            dual.save_value(value)


def _array(value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    dense = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    return np.broadcast_to(dense, shape) if dense.ndim == 0 else dense.reshape(shape)


def _linear_maps(
    probe: Callable[[Array], list[NDArray[Any]]], size: int, names: Sequence[str]
) -> list[tuple[tuple[int, ...], bool, sp.csr_array]]:
    """Return the matrices of a linear function, which is given as a black box with several outputs.

    Where each entry (real or imaginary part) of an output is a multiple of one entry of the input, two
    probes find all of them: ones for the factors, 1, 2, 3, ... for the positions. A third verifies it.

    Returns
    -------
    list of (shape, complex, csr_array)
        Rows are the entries in C order; imaginary parts follow the real ones.
    """
    numbers = np.arange(1.0, size + 1.0)
    check = np.random.default_rng(0).uniform(0.5, 1.5, size)
    ones, numbered, checked = probe(np.ones(size)), probe(numbers), probe(check)
    found = []
    for k, name in enumerate(names):
        is_complex = any(np.iscomplexobj(out[k]) for out in (ones, numbered, checked))
        factor, positions, expected = (_parts(out[k], is_complex) for out in (ones, numbered, checked))
        matrix = _selection(factor, positions, size)
        if not _close(matrix @ check, expected):
            if size > _MOST_COLUMNS:
                raise ProblemError(f"{name} is not a selection of the cone program's solution.")
            columns = [_parts(probe(unit)[k], is_complex) for unit in np.eye(size)]
            matrix = sp.csr_array(np.stack(columns, axis=1))
            if not _close(matrix @ check, expected):
                raise ProblemError(f"{name} is not linear in the cone program's solution.")
        found.append((tuple(int(j) for j in ones[k].shape), is_complex, matrix))
    return found


def _selection(factor: Array, positions: Array, size: int) -> sp.csr_array:
    """Return the matrix with one entry ``factor`` a row, in the column that factor x (column + 1) tells."""
    rows = np.flatnonzero(factor)
    columns = np.rint(positions[rows] / factor[rows]).astype(np.int64) - 1
    inside = (columns >= 0) & (columns < size)
    rows, columns = rows[inside], columns[inside]
    return sp.csr_array((factor[rows], (rows, columns)), shape=(factor.size, size))


def _parts(value: NDArray[Any], is_complex: bool) -> Array:
    flat = np.asarray(value).ravel()
    return np.concatenate([flat.real, flat.imag]) if is_complex else np.asarray(flat, dtype=np.float64)


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=1e-9, atol=1e-12))

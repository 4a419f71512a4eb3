"""The independent check: right points pass, wrong ones do not, and three solvers agree."""

from __future__ import annotations

import numpy as np
import pytest

import conediff as cd
from tests.benchmarks import judge
from tests.benchmarks.solvers import by_clarabel, by_scs
from tests.programs import CONES, curve, draw

READ = {name: cones for name, cones in CONES.items() if not {"bl", "cs"} & set(cones)}


@pytest.fixture
def rng():
    return np.random.default_rng(14)


@pytest.mark.parametrize("name", READ)
def test_a_solution_known_by_construction_passes_and_its_neighbours_do_not(rng, name):
    known = draw(rng, READ[name])
    assert judge.kkt_residual(known.program, *known.solution) < 1e-13
    for k in range(3):
        moved = [part.copy() for part in known.solution]
        moved[k] += 1e-3 * (1 + np.abs(moved[k]).max()) * rng.standard_normal(moved[k].shape)
        assert judge.kkt_residual(known.program, *moved) > 1e-5


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("dual", [False, True])
def test_distances_bound_those_to_the_projection(rng, name, dual):
    cone = cd.cones.ProductCone.from_dict(READ[name])
    for scale in (1e-3, 1.0, 1e3):
        v = scale * rng.standard_normal(cone.dim)
        onto_dual = cone.project_dual(v).point
        projected = onto_dual if dual else v + cone.project_dual(-v).point
        found = judge.distance(READ[name], v, dual)
        # Of all cones the largest distance counts; that of a second-order cone is short by up to sqrt(2).
        assert found * np.sqrt(cone.dim) >= 0.5 * np.linalg.norm(v - projected) - 1e-12 * scale
        assert judge.distance(READ[name], projected, dual) <= 1e-12 * scale


@pytest.mark.parametrize("name", READ)
def test_references_solve_what_is_known(rng, name):
    pytest.importorskip("clarabel")
    drawn = [draw(rng, READ[name]) for _ in range(4)]
    for solver in (by_scs, by_clarabel):
        answers = [solver(known.program, 10.0) for known in drawn]
        # Clarabel ends some of these with a numerical error.
        assert sum(answer.status == "solved" for answer in answers) >= 2
        for known, answer in zip(drawn, answers, strict=True):
            if answer.status == "solved":
                assert judge.kkt_residual(known.program, answer.x, answer.y, answer.s) < 1e-6
                np.testing.assert_allclose(answer.x, known.x, atol=1e-2)


def test_rounding_errors_are_no_residual():
    """Minimise (x - y)^2 subject to x + y = 1: at (1/2, 1/2) all terms of P x + A'y + c = 0 are zero."""
    program = cd.ConeProgram(np.ones((1, 2)), [1.0], np.zeros(2), {"z": 1}, [[2.0, -2.0], [-2.0, 2.0]])
    x, y, s = np.array([0.5 + 1e-16, 0.5]), np.array([-1e-17]), np.zeros(1)
    assert judge.kkt_residual(program, x, y, s) < 1e-15
    assert judge.kkt_residual(program, x + np.array([1e-9, 0]), y, s) > 1e-10


def test_certificates(rng):
    infeasible = cd.ConeProgram(np.array([[1.0], [-1.0]]), [-1.0, 0.0], [1.0], {"l": 2})
    right, wrong = np.array([1.0, 1.0]), np.array([1.0, 0.5])
    assert judge.certificate_residual(infeasible, "infeasible", np.zeros(1), right, np.zeros(2)) == 0
    assert judge.certificate_residual(infeasible, "infeasible", np.zeros(1), wrong, np.zeros(2)) > 0.1
    assert judge.certificate_residual(infeasible, "infeasible", np.zeros(1), -right, np.zeros(2)) == np.inf
    unbounded = cd.ConeProgram(np.array([[-1.0]]), [0.0], [-1.0], {"l": 1})
    assert judge.certificate_residual(unbounded, "unbounded", np.ones(1), np.zeros(1), np.ones(1)) == 0
    assert judge.certificate_residual(unbounded, "unbounded", -np.ones(1), np.zeros(1), np.ones(1)) == np.inf


@pytest.mark.parametrize("name", READ)
def test_derivatives_of_a_regular_program_pass_and_wrong_ones_do_not(rng, name):
    known = draw(rng, READ[name])
    derivative = known.at_solution().derivative()
    tangent, u = curve(rng, known).data, rng.standard_normal(known.program.n)
    dP, dA, db, dc = tangent
    answer, g = derivative.jvp(dP=dP, dA=dA, db=db, dc=dc), derivative.vjp(dx=u)
    found = judge.linear_residuals(known.program, known.solution, tangent, answer, u, g)
    assert max(found) < 1e-9
    assert judge.adjoint_error(tangent, answer, u, g) < 1e-9
    wrong = tuple(1.01 * part for part in answer)
    assert judge.linear_residuals(known.program, known.solution, tangent, wrong, u, g)[0] > 1e-4
    doubled = g._replace(db=2 * g.db + 1)
    assert judge.linear_residuals(known.program, known.solution, tangent, answer, u, doubled)[1] > 1e-4

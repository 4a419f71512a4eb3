"""cvxpy's own tests of its derivatives, with conediff in diffcp's place.

They solve with SCS and with Clarabel, as cvxpy asks diffcp to, and compare with differences of cvxpy's own
solutions.
"""

from __future__ import annotations

import pytest

import conediff.compat

theirs = pytest.importorskip("cvxpy.tests.test_derivative", reason="this cvxpy comes without its tests")

TestBackward = theirs.TestBackward
TestBackwardComplex = theirs.TestBackwardComplex
TestBackwardDgp = theirs.TestBackwardDgp

pytestmark = [
    pytest.mark.filterwarnings("ignore::conediff.errors.DegeneracyWarning"),
    pytest.mark.filterwarnings("ignore:Reading from a sparse CVXPY expression:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The problem includes expressions that don't support CPP:UserWarning"),
]


@pytest.fixture(autouse=True)
def installed():
    with conediff.compat.install():
        yield


def test_it_is_conediff_that_they_call():
    import diffcp

    assert diffcp.solve_and_derivative_internal is conediff.compat.solve_and_derivative_internal

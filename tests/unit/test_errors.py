"""Warnings point at the user's own line."""

from __future__ import annotations

import functools
import warnings

import numpy as np

import conediff as cd
from conediff.errors import warn


def degenerate():
    return cd.ConeProgram(np.array([[1, 1], [-1, 0], [0, -1.0]]), [1, 0, 0], [1, 1], {"z": 1, "l": 2})


def test_warnings_point_at_the_users_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cd.solve(degenerate()).derivative().vjp([1, 2.0])
        cd.solve_batch([degenerate()] * 2).derivative().vjp(np.ones((2, 2)) * [1, 2])
    assert [w.category for w in caught] == [cd.DegeneracyWarning] * 2
    assert all(w.filename == __file__ for w in caught)


def test_lines_of_frameworks_are_not_the_users():
    def source(name):
        namespace = {"__name__": name}
        exec(compile("def call(function):\n    function()\n", f"{name}.py", "exec"), namespace)
        return namespace["call"]

    frameworks = (
        "torch.autograd.graph",
        "keras.src.layers",
        "tensorflow.python.eager",
        "jax._src.api",
        "mlx.nn",
    )
    for name in (*frameworks, "conediff_torch", "conediff_jax._run", "conediff_mlx.functional"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inside = functools.partial(warn, "x", cd.AccuracyWarning)
            source(name)(functools.partial(source("conediff.layer"), inside))
        assert [w.filename for w in caught] == [__file__], name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source("torch_geometric.nn")(functools.partial(warn, "x", cd.AccuracyWarning))
    assert [w.filename for w in caught] == ["torch_geometric.nn.py"]


def test_one_base_class():
    for name in cd.__all__:
        item = getattr(cd, name)
        if isinstance(item, type) and issubclass(item, Exception):
            assert issubclass(item, (cd.ConediffError, cd.ConediffWarning))


def test_kinds_of_error_that_users_catch():
    for error in (cd.DPPError, cd.ProblemError, cd.ParameterError, cd.ConeError):
        assert issubclass(error, ValueError)
    assert issubclass(cd.SolverError, RuntimeError)

"""The progress bar: off by default, counts every program once, changes nothing."""

from __future__ import annotations

import builtins
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.parallel import ThreadBackend, backend

tqdm_auto = pytest.importorskip("tqdm.auto")
COUNT = 3000


@pytest.fixture
def bars(monkeypatch):
    """The bars that are drawn, each with its text, its total and what it was advanced by."""
    drawn = []

    class Bar:
        def __init__(self, total, desc, unit):
            self.total, self.desc, self.steps = total, desc, []
            drawn.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            self.steps.append(count)

    monkeypatch.setattr(tqdm_auto, "tqdm", Bar)
    return drawn


@pytest.fixture(scope="module")
def layer():
    x, c = cp.Variable(10), cp.Parameter(10)
    return cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0, cp.sum(x) <= 1]), [c], [x])


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).standard_normal((COUNT, 10))


@pytest.mark.parametrize("threads", [1, 2])
def test_every_part_of_a_large_batch_is_counted(layer, points, bars, threads):
    expected = layer.solve(points)
    assert not bars
    solution = layer.solve(points, solver_args={"progress": True, "threads": threads})
    gradient = solution.vjp(np.ones((COUNT, 10)))
    assert [bar.desc for bar in bars] == ["solving", "differentiating"]
    for bar in bars:
        assert bar.total == COUNT == sum(bar.steps)
    assert len(bars[0].steps) > 1
    np.testing.assert_array_equal(solution.values[0], expected.values[0])
    np.testing.assert_array_equal(gradient[0], expected.vjp(np.ones((COUNT, 10)))[0])


def test_an_executor(layer, points, bars):
    with ThreadPoolExecutor(2) as executor:
        args = {"progress": True, "executor": executor}
        solution = layer.solve(points[:500], solver_args=args)
        solution.vjp(np.ones((500, 10)))
    assert [bar.desc for bar in bars] == ["solving", "differentiating"]
    assert all(sum(bar.steps) == bar.total == 500 and len(bar.steps) > 1 for bar in bars)


def test_the_bar_of_tqdm(layer, points, capfd):
    layer.solve(points, solver_args={"progress": True})
    assert "solving: 100%" in capfd.readouterr().err
    layer.solve(points)
    assert not capfd.readouterr().err


def test_without_tqdm(layer, points, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tqdm" else real(name, *a)
    )
    with pytest.raises(ImportError, match="pip install tqdm"):
        layer.solve(points, solver_args={"progress": True})
    layer.solve(points[:3], solver_args={"progress": False})


def test_tqdm_is_imported_only_for_a_bar(layer, points, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert not name.startswith("tqdm")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    layer.solve(points[:3])


def test_a_part_that_fails_ends_the_bar(bars):
    def fail(part):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        backend(None, 1, "working").map(fail, (), [slice(0, 2), slice(2, 4)], lambda part: (part,))
    assert bars[0].steps == []
    assert isinstance(backend(None, 1), ThreadBackend)


def test_settings():
    with pytest.raises(ValueError, match="progress must be True or False"):
        cd.solve(cd.ConeProgram(np.eye(1), [1.0], [1.0], {"l": 1}), progress="yes")

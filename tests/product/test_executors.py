"""Results do not depend on who solves: threads, processes, a cluster, and what is left of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.programs import CONES, draw

pytestmark = pytest.mark.usefixtures("strict")


def spawned(workers):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes():
    with spawned(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module", params=["threads", "processes", "cluster"])
def executor(request):
    if request.param == "threads":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    elif request.param == "processes":
        yield request.getfixturevalue("processes")
    else:
        yield request.getfixturevalue("cluster").get_executor()


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        size = np.abs(np.nan_to_num(other)).max(initial=0)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("cones", ["linear", "soc_mixed", "psd_3", "exponential", "mixed", "everything"])
def test_programs_of_all_cones(executor, cones):
    rng = np.random.default_rng(80)
    program = draw(rng, CONES[cones]).program
    b = program.b + 1e-2 * rng.standard_normal((37, program.m))
    settings = {"b": b, "on_failure": "nan"}
    plain, found = cd.solve_batch(program, **settings), cd.solve_batch(program, executor=executor, **settings)
    good = ~plain.failed
    assert good.any()
    np.testing.assert_array_equal(found.status, plain.status)
    same([found.x[good], found.y[good], found.s[good]], [plain.x[good], plain.y[good], plain.s[good]])
    dx, dy = rng.standard_normal(plain.x.shape), rng.standard_normal(plain.y.shape)
    left, right = found.derivative().vjp(dx=dx, dy=dy), plain.derivative().vjp(dx=dx, dy=dy)
    same([part[good] for part in left], [part[good] for part in right])
    left, right = (one.derivative().jvp(db=dy, dc=dx) for one in (found, plain))
    same([part[good] for part in left], [part[good] for part in right])


def entropic():
    """Shares under uneven weights: cone scalings, and a redundant row whose dual nobody sees."""
    x, p = cp.Variable(4), cp.Parameter(4, nonneg=True)
    objective = cp.Minimize(cp.sum_squares(x - p) - 1e-3 * cp.sum(cp.log(x)))
    layer = cd.CvxpyLayer(cp.Problem(objective, [cp.sum(x) == 4, 2 * cp.sum(x) == 8]), [p], [x])
    return layer, np.random.default_rng(81).uniform(0, 2, (61, 4)) * 10.0 ** np.arange(-4, 0)


def test_a_layer_and_its_derivatives(executor):
    layer, values = entropic()
    plain = layer.solve(values)
    found, again = (layer.solve(values, solver_args={"executor": executor}) for _ in range(2))
    same(found.values, plain.values)
    same(found.vjp(values), plain.vjp(values))
    same(again.jvp(values), plain.jvp(values))
    warm = layer.solve(values * 1.0001, solver_args={"executor": executor, "warm_start": found})
    assert (warm.info["iterations"] == 0).mean() > 0.5
    same(warm.values, layer.solve(values * 1.0001, solver_args={"warm_start": plain}).values)


def test_derivatives_in_cone_scalings(executor):
    """Minimise c x - log x: x = 1 / c, over decades."""
    x, c = cp.Variable(), cp.Parameter(pos=True)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(c * x - cp.log(x))), [c], [x])
    values = np.logspace(-6, 6, 50)
    found, again = (layer.solve(values, solver_args={"executor": executor}) for _ in range(2))
    assert (found.result.y[:, 0] > 1e3 * found.result.s[:, 0]).any()  # an uneven pair
    for derivative in (found.vjp(np.ones(50)), again.jvp(np.ones(50))):
        np.testing.assert_allclose(derivative[0], -1 / values**2, rtol=1e-6)
    plain = layer.solve(values)
    np.testing.assert_allclose(found.values[0], plain.values[0], rtol=1e-9)
    np.testing.assert_allclose(found.vjp(np.ones(50))[0], plain.vjp(np.ones(50))[0], rtol=1e-9)


def test_an_element_that_fails(executor):
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1]), [p], [x])
    values = np.random.default_rng(82).uniform(-0.5, 0.4, (90, 2))
    values[70] = 2.0
    with pytest.raises(cd.SolverError) as caught:
        layer(values, solver_args={"executor": executor})
    assert caught.value.indices == ((70,),)
    given = {"executor": executor, "on_failure": lambda solution: "nan"}  # which cannot be sent
    same(layer(values, solver_args=given), layer(values, solver_args={"on_failure": "nan"}))


# ---------------------------------------------------------------------- what is left


def hard():
    """A batch that takes two workers a second or two."""
    X, C = cp.Variable((20, 20), symmetric=True), cp.Parameter((20, 20))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.diag(X) == 1])
    noise = np.random.default_rng(83).uniform(-1, 1, (64, 20, 20))
    return cd.CvxpyLayer(problem, [C], [X]), noise + noise.swapaxes(1, 2)


@pytest.fixture(scope="module")
def hard_answer():
    layer, values = hard()
    return layer(values)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_dies_loses_nothing(hard_answer):
    layer, values = hard()
    with spawned(2) as executor:
        victims = set(executor.map(_pid, range(8)))
        threading.Timer(0.3, os.kill, (victims.pop(), signal.SIGKILL)).start()
        with pytest.warns(cd.ConediffWarning, match="BrokenProcessPool: .* are done in this process"):
            same(layer(values, solver_args={"executor": executor}), hard_answer)
        with pytest.raises(cd.ExecutorError, match="takes no work"):
            layer(values, solver_args={"executor": executor})


def _pid(_):
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_cluster_that_loses_a_worker_goes_on(cluster, hard_answer):
    layer, values = hard()
    executor, victims = cluster.get_executor(), list(cluster.run(os.getpid).values())
    threading.Timer(0.3, os.kill, (victims[0], signal.SIGKILL)).start()
    same(layer(values, solver_args={"executor": executor}), hard_answer)
    cluster.wait_for_workers(2, timeout=60)
    assert set(cluster.run(os.getpid).values()) != set(victims)
    same(layer(values, solver_args={"executor": executor}), hard_answer)


def test_a_cluster_that_is_closed():
    distributed = pytest.importorskip("distributed")
    layer, values = entropic()
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        client = distributed.Client(cluster)
        executor = client.get_executor()
        layer(values, solver_args={"executor": executor})
        client.close()
        with pytest.raises(cd.ExecutorError, match="takes no work .*closed"):
            layer(values, solver_args={"executor": executor})


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_stops_promptly_and_leaves_the_executor_in_order():
    code = """
        import multiprocessing, os, signal, threading, time
        from concurrent.futures import ProcessPoolExecutor
        import numpy as np, conediff as cd

        def batch(executor, count):
            rng = np.random.default_rng(0)
            A, b = rng.standard_normal((90, 60)), rng.uniform(1, 2, (800, 90))
            program = cd.ConeProgram(A, b[0], rng.standard_normal(60), {"l": 50, "q": [40]}, np.eye(60))
            return cd.solve_batch(program, b=b[:count], executor=executor).x

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
                before = batch(executor, 20)
                for _ in range(2):
                    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                    start = time.perf_counter()
                    try:
                        batch(executor, 800)
                    except KeyboardInterrupt:
                        print("interrupted", time.perf_counter() - start < 2)
                    np.testing.assert_allclose(batch(executor, 20), before, rtol=1e-9, atol=1e-9)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.splitlines() == ["interrupted True"] * 2, result.stderr

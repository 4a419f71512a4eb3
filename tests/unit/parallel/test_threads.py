"""The kept pool: order, errors, forks, and ctrl-C in a long batch; BLAS's threads meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from conediff.parallel.threads import ThreadBackend, mapper, one_blas_thread


@pytest.mark.parametrize("threads", [1, 2, None])
def test_results_come_in_order(threads):
    def slow_first(k):
        time.sleep(0.02 * (k == 0))
        return k

    assert list(mapper(threads)(slow_first, range(6))) == list(range(6))


def test_an_error_stops_the_rest():
    begun = []

    def job(k):
        begun.append(k)
        if k == 0:
            raise RuntimeError("first")
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="first"):
        list(mapper(2)(job, range(100)))
    assert len(begun) < 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_its_own_pool():
    list(mapper(2)(abs, range(4)))
    child = os.fork()
    if child == 0:
        os._exit(0 if list(mapper(2)(abs, range(4))) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupt_stops_promptly_and_leaves_a_clean_state():
    code = """
        import os, signal, threading, time
        import cvxpy as cp, numpy as np, conediff as cd
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        x, c = cp.Variable(50), cp.Parameter(50)
        objective = cp.sum_squares(x - c) + cp.sum(cp.exp(x)) + cp.norm(x)
        layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(objective), [cp.sum(x) == 1]), [c], [x])
        values = np.random.default_rng(0).standard_normal((6000, 50))
        before = layer(values[:10])[0]
        caught = threading.Event()

        # SCS forgets what arrives while it is being set up: somebody who waits presses again.
        def press():
            for _ in range(4):
                if not caught.wait(0.4):
                    os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        start = time.perf_counter()
        try:
            layer(values)
        except KeyboardInterrupt:
            caught.set()
            took = time.perf_counter() - start
        assert took < 3, took
        np.testing.assert_array_equal(layer(values[:10])[0], before)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        print("clean")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.strip().endswith("clean"), result.stderr


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_is_held_at_one_thread_until_the_last_one_leaves():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert set(blas_threads()) == {1}
        first.__exit__(None, None, None)  # not the one that came last: as threads overlap
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before and max(before) == 2


def test_blas_gets_its_threads_back_after_an_error():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert blas_threads() == before and max(before) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_what_overflows_does_not_warn(threads):
    parts = [slice(0, 1), slice(1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ThreadBackend(threads).map(lambda x: 1e308 * x, (), parts, lambda part: (np.full(1, 1e10),))
    assert np.isinf(found).all()

"""Executors of every behaviour, made here: what is sent, what is lost, what is refused, and who says so."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from conediff.parallel import constants
from conediff.parallel import executor as executors
from conediff.solver.result import SolveResult

X, C = cp.Variable(3), cp.Parameter(3)
PROBLEM = cp.Problem(cp.Minimize(cp.sum_squares(X - C) + cp.norm(X)), [cp.sum(X) <= 1])
RNG = np.random.default_rng(70)
VALUES, WEIGHTS, TANGENTS = (RNG.standard_normal((300, 3)) for _ in range(3))


class Sent(Executor):
    """Does jobs at once, after their way through pickle and back; notes which brought their structure."""

    def __init__(self, workers=2):
        self.brought = []
        if workers:
            self._max_workers = workers

    def answer(self, future, function, arguments):
        future.set_result(pickle.loads(pickle.dumps(function(*arguments))))

    def submit(self, function, /, *arguments):
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        self.brought.append(all(parcel.content is not None for parcel in arguments[0] if parcel))
        future = Future()
        self.answer(future, function, arguments)
        return future


class Losing(Sent):
    """Loses jobs: those that `lost` names, by their number, come to this end."""

    def __init__(self, lost, end):
        super().__init__()
        self.lost, self.end = lost, end

    def answer(self, future, function, arguments):
        if len(self.brought) - 1 not in self.lost:
            super().answer(future, function, arguments)
        elif self.end == "cancelled":
            future.cancel()
        else:
            future.set_exception(self.end)


class Breaking(Sent):
    """Breaks after so many jobs, as a process pool does whose worker dies, and takes no more."""

    def __init__(self, after):
        super().__init__()
        self.after, self.broken = after, BrokenExecutor("a worker died")

    def submit(self, function, /, *arguments):
        if len(self.brought) > self.after + 1:
            raise self.broken
        return super().submit(function, *arguments)

    def answer(self, future, function, arguments):
        if len(self.brought) > self.after:
            future.set_exception(self.broken)
        else:
            super().answer(future, function, arguments)


@pytest.fixture(autouse=True)
def fresh_workers():
    """Nobody has met any structure; small parts."""
    executors._unpacked.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", cd.ConediffWarning)
        yield


@pytest.fixture(scope="module")
def layer():
    return cd.CvxpyLayer(PROBLEM, [C], [X, PROBLEM.constraints[0].dual_variables[0]])


@pytest.fixture(scope="module")
def expected(layer):
    return answers(layer, None)


def answers(layer, executor, **settings):
    """Everything that a batch gives: values, cotangents, tangents, duals, and how it went."""
    given = {"executor": executor, **settings}
    solution, again = (layer.solve(VALUES, solver_args=given) for _ in range(2))
    info = [solution.info[key] for key in ("status", "iterations", "refinements")]
    cotangents = solution.vjp(WEIGHTS, WEIGHTS[:, 0])
    return *solution.values, *cotangents, *again.jvp(TANGENTS), *solution.duals, *info


def check(found, expected):
    for one, other in zip(found, expected, strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max(initial=0))
        else:
            np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------- the same answers


@pytest.mark.parametrize("workers", [1, 2, 7, None])
def test_the_same_answers_in_order(layer, expected, workers):
    executor = Sent(workers)
    check(answers(layer, executor), expected)
    assert len(executor.brought) > 3


def test_threads_of_this_process(layer, expected):
    with ThreadPoolExecutor(3) as executor:
        check(answers(layer, executor), expected)
        check(answers(layer, executor, threads=2), expected)


def test_programs_in_numpy():
    rng = np.random.default_rng(71)
    A, b, c = rng.standard_normal((4, 3)), rng.uniform(1, 2, (50, 4)), rng.standard_normal((50, 3))
    program = cd.ConeProgram(A, b[0], c[0], {"l": 1, "q": [3]}, np.eye(3))
    plain, executor = cd.solve_batch(program, b=b, c=c), Sent()
    spread_out = cd.solve_batch(program, b=b, c=c, executor=executor)
    check([spread_out.x, spread_out.y, spread_out.s], [plain.x, plain.y, plain.s])
    check(spread_out.derivative().vjp(dx=c, ds=b), plain.derivative().vjp(dx=c, ds=b))
    pushed = spread_out.derivative().jvp(db=b, dA=np.ones((50, 12)))
    check(pushed, plain.derivative().jvp(db=b, dA=np.ones((50, 12))))
    listed = [cd.ConeProgram(A, b[k], c[k], {"l": 1, "q": [3]}, np.eye(3)) for k in range(50)]
    check([cd.solve_batch(listed, executor=executor).x], [plain.x])
    check([cd.solve(listed[7], executor=executor).x], [plain.x[7]])


@pytest.mark.parametrize("batch", [(0,), (1,), (), (2, 0), (2, 3)])
def test_batches_of_any_shape(layer, batch):
    values, executor = VALUES[: int(np.prod(batch))].reshape(*batch, 3), Sent()
    solution, plain = layer.solve(values, solver_args={"executor": executor}), layer.solve(values)
    check(solution.values, plain.values)
    weights = [np.ones_like(value) for value in plain.values]
    check(solution.vjp(*weights), plain.vjp(*weights))
    assert solution.info["residual"].shape == batch
    assert bool(executor.brought) == (0 not in batch)


def test_a_parameter_that_all_share():
    x, A, b = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0]), [A, b], [x])
    rng = np.random.default_rng(72)
    values, g = (rng.standard_normal((4, 3)), rng.standard_normal((200, 4))), np.ones((200, 3))
    solution, plain = layer.solve(*values, solver_args={"executor": Sent()}), layer.solve(*values)
    check([*solution.values, *solution.vjp(g)], [*plain.values, *plain.vjp(g)])
    tangents = rng.standard_normal((4, 3)), rng.standard_normal((200, 4))
    check(layer.solve(*values, solver_args={"executor": Sent()}).jvp(*tangents), plain.jvp(*tangents))


def test_warm_starts(layer):
    cold = layer.solve(VALUES)
    given = layer.solve(VALUES + 1e-5, solver_args={"executor": Sent(), "warm_start": cold})
    assert (given.info["iterations"] == 0).all() and (given.info["refinements"] > 0).all()
    check(given.values, layer.solve(VALUES + 1e-5).values)
    own = cd.CvxpyLayer(PROBLEM, [C], [X], solver_args={"executor": Sent(), "warm_start": True})
    own(VALUES)
    assert (own.solve(VALUES + 1e-5).info["iterations"] == 0).all()


def test_times_are_those_of_all_workers(layer):
    solver, data = layer._compiled.solver, layer.maps.evaluate([VALUES])[0]
    parts = [solver.solve(data, layer.settings) for _ in range(3)]
    joined = SolveResult.joined(parts)
    assert joined.count == 3 * len(VALUES)
    assert joined.solve_time == pytest.approx(sum(part.solve_time for part in parts))


@pytest.mark.parametrize("threads", [None, 3])
def test_threads_are_for_each_worker(layer, monkeypatch, threads):
    """One by default, for workers share the processors."""
    asked = []
    monkeypatch.setattr("conediff.solver.schedule.mapper", lambda count: asked.append(count) or map)
    settings = {"executor": Sent(), "threads": threads}
    layer.solve(VALUES, solver_args=settings)
    assert len(asked) >= 4 and set(asked) == {threads or 1}


# ---------------------------------------------------------------------- failed elements, degenerate ones


@pytest.fixture(scope="module")
def failing():
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1]), [p], [x])
    values = np.random.default_rng(73).uniform(-0.5, 0.4, (90, 2))
    values[[3, 70]] = 2.0
    return layer, values


def test_elements_that_fail_are_named_as_they_stand(failing):
    layer, values = failing
    with pytest.raises(cd.SolverError) as caught:
        layer(values, solver_args={"executor": Sent()})
    assert caught.value.indices == ((3,), (70,))
    assert caught.value.statuses == ("infeasible", "infeasible")


@pytest.mark.parametrize("answer", ["nan", "zero_grad", lambda solution: "nan"], ids=["nan", "zero", "own"])
def test_elements_that_fail_cost_the_others_nothing(failing, answer):
    layer, values = failing
    solution = layer.solve(values, solver_args={"executor": Sent(), "on_failure": answer})
    plain = layer.solve(values, solver_args={"on_failure": answer})
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(solution.values[0]).any(axis=1)), [3, 70])
    np.testing.assert_allclose(solution.values[0], plain.values[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solution.vjp(values)[0], plain.vjp(values)[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solution.cones[70].y, plain.cones[70].y)


def test_a_degenerate_element_is_reported_as_it_stands():
    """Minimise |x - p| along an edge at whose end the sign of p decides: a kink, in one element of many."""
    x, p = cp.Variable(), cp.Parameter()
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - p)), [x >= 0]), [p], [x])
    values = np.linspace(-1.0, 1.0, 401)
    solution = layer.solve(values, solver_args={"executor": Sent()})
    with pytest.warns(cd.DegeneracyWarning) as caught:
        (found,) = solution.vjp(np.ones(401))
        plain_solution = layer.solve(values)
        (plain,) = plain_solution.vjp(np.ones(401))
    assert len(caught) == 1  # the layer's user has been told
    for answered in (solution, plain_solution):
        assert list(np.flatnonzero(answered.diagnostics.degenerate)) == [200]
        assert answered.info["degenerate"] == 1
    np.testing.assert_allclose(found, plain, atol=1e-9)


def test_what_nobody_sees_may_be_degenerate_in_a_worker():
    """A redundant constraint: its multiplier is not unique, and K singular; the gradient is unique."""
    constraints = [cp.sum(X) == 1, 2 * cp.sum(X) == 2]
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), constraints), [C], [X])
    executor = Sent()
    solution = layer.solve(VALUES, solver_args={"executor": executor})
    before = len(executor.brought)
    check(solution.vjp(WEIGHTS), [WEIGHTS - WEIGHTS.mean(axis=1, keepdims=True)])
    assert len(executor.brought) - before > 1
    assert not solution.derivative.stack._derivatives  # nothing was factorised here
    assert not solution.diagnostics.dual_unique.any()


# ---------------------------------------------------------------------- what is sent


def test_a_structure_is_sent_once_for_each_worker(layer):
    executor, other = Sent(2), Sent(3)
    layer(VALUES, solver_args={"executor": executor})
    assert executor.brought[:2] == [True, True] and not any(executor.brought[2:])
    count = len(executor.brought)
    layer(VALUES, solver_args={"executor": executor})
    copy.deepcopy(layer)(VALUES, solver_args={"executor": executor})
    assert not any(executor.brought[2:]) and len(executor.brought) == 3 * count
    layer(VALUES, solver_args={"executor": other})
    assert sum(other.brought) == 3


def test_a_worker_that_does_not_know_the_structure_is_told(layer, expected):
    executor = Sent(2)
    layer(VALUES, solver_args={"executor": executor})
    executors._unpacked.cache_clear()
    executor.brought.clear()
    check([layer(VALUES, solver_args={"executor": executor})[0]], expected[:1])
    count = len(executor.brought)
    assert any(executor.brought) and not executor.brought[0] and executor.brought[count - 1]


def test_the_first_derivative_goes_out_and_further_ones_stay(layer, expected):
    executor = Sent()
    solution = layer.solve(VALUES, solver_args={"executor": executor})
    counts, answers = [len(executor.brought)], []
    for _ in range(3):
        answers.append(solution.vjp(WEIGHTS, WEIGHTS[:, 0]))
        check(answers[-1], expected[2:3])
        counts.append(len(executor.brought))
    assert counts[1] > counts[0] and counts[1:] == [counts[1]] * 3
    for again in answers[1:]:
        np.testing.assert_array_equal(again[0], answers[0][0])  # to the last bit, wherever it comes from
    check(solution.jvp(TANGENTS), expected[3:5])
    assert len(executor.brought) == counts[1]


@pytest.mark.parametrize("method", ["direct", "lsqr", "dense"])
def test_other_methods_differentiate_here(layer, method):
    executor, values = Sent(), VALUES[:4]
    solution = layer.solve(values, solver_args={"executor": executor, "method": method})
    count = len(executor.brought)
    check(solution.vjp(WEIGHTS[:4], WEIGHTS[:4, 0]), layer.solve(values).vjp(WEIGHTS[:4], WEIGHTS[:4, 0]))
    assert len(executor.brought) == count


def test_parts_are_whole_piles_and_of_limited_size():
    cut = executors.ExecutorBackend(Sent(2)).parts
    small = cut(1000, at_least=1, multiple=64, row_bytes=24)
    assert [part.start for part in small] == list(range(0, 1000, small[0].stop)) and small[-1].stop == 1000
    assert small[0].stop % 64 == 0 and 4 <= len(small) <= 8
    assert cut(64, at_least=1, multiple=64, row_bytes=24) == [slice(0, 64)]
    large = cut(10**4, at_least=1, multiple=64, row_bytes=80_000)
    assert large[0].stop == -(-(constants.MESSAGE_BYTES // 80_000) // 64) * 64
    assert len(cut(1000, at_least=50, multiple=1, row_bytes=24)) == 50


def test_how_many_jobs_at_a_time():
    with ThreadPoolExecutor(5) as threads:
        assert executors.worker_count(threads) == 5
    assert executors.worker_count(Sent(3)) == 3
    assert executors.worker_count(Sent(None)) is None
    mpi = Sent(None)
    mpi.num_workers = 6
    assert executors.worker_count(mpi) == 6


# ---------------------------------------------------------------------- what is lost


@pytest.mark.parametrize("end", ["cancelled", BrokenExecutor("lost")], ids=["cancelled", "broken"])
@pytest.mark.parametrize("lost", [{0}, {1, 2}, {0, 1, 2, 3}])
def test_what_is_lost_once_is_sent_again(layer, expected, lost, end):
    executor = Losing(lost, end)
    check([layer(VALUES, solver_args={"executor": executor})[0]], expected[:1])
    assert max(lost) < len(executor.brought)


@pytest.mark.parametrize("end", ["cancelled", BrokenExecutor("lost")], ids=["cancelled", "broken"])
def test_what_is_lost_again_is_done_here(layer, expected, end):
    executor = Losing(range(1000), end)
    with pytest.warns(cd.ConediffWarning, match=r"(\d+) of \1 parts .* are done in this process"):
        solution = layer.solve(VALUES, solver_args={"executor": executor})
    with pytest.warns(cd.ConediffWarning, match="are done in this process"):
        check([*solution.values, *solution.vjp(WEIGHTS, WEIGHTS[:, 0])], expected[:3])


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_executor_that_breaks_midway(layer, expected, after):
    executor = Breaking(after)
    with pytest.warns(cd.ConediffWarning, match="BrokenExecutor: a worker died") as caught:
        check([layer(VALUES, solver_args={"executor": executor})[0]], expected[:1])
    assert len(caught) == 1
    with pytest.raises(cd.ExecutorError, match="takes no work .a worker died.*make a new one") as raised:
        layer(VALUES, solver_args={"executor": executor})
    assert raised.value.__cause__ is executor.broken


def test_a_part_that_every_worker_died_of_is_given_up(layer):
    killed = pytest.importorskip("distributed.scheduler").KilledWorker("task", None, 3)
    solver, count = layer._compiled.solver, len(VALUES)
    size = executors.ExecutorBackend(Sent(2)).parts(count, 1, solver.piles.size(count), 24)[0].stop
    with pytest.raises(
        cd.ExecutorError, match=f"elements {size} to {2 * size - 1} of the batch are given up"
    ):
        layer(VALUES, solver_args={"executor": Losing({1}, killed)})


def test_a_derivative_without_its_executor(layer, expected):
    """It was shut down between the solve and the derivative."""
    with ThreadPoolExecutor(2) as executor:
        solution = layer.solve(VALUES, solver_args={"executor": executor})
    with pytest.warns(
        cd.ConediffWarning, match="takes no work .*; the derivative is computed in this process"
    ):
        check(solution.vjp(WEIGHTS, WEIGHTS[:, 0]), expected[2:3])


# ---------------------------------------------------------------------- what is refused


class Misfit(Exception):
    """Somebody's own."""


@pytest.mark.parametrize(
    "error", [Misfit("mine"), TypeError("mine"), MemoryError("mine"), KeyboardInterrupt()]
)
def test_errors_of_a_job_are_raised_as_they_are(layer, error):
    class Failing(Executor):
        def __init__(self):
            self.futures = []

        def submit(self, function, /, *arguments):
            self.futures.append(Future())
            if len(self.futures) == 2:
                self.futures[1].set_exception(error)
            return self.futures[-1]

    executor = Failing()
    with pytest.raises(type(error)) as caught:
        layer(VALUES, solver_args={"executor": executor})
    assert caught.value is error
    if isinstance(error, Exception):
        assert "elements" in "".join(error.__notes__)
    rest = [future for k, future in enumerate(executor.futures) if k != 1]
    assert rest and all(future.cancelled() for future in rest)


def test_errors_of_the_executor_are_raised_as_they_are(layer):
    class Choosy(Executor):
        def submit(self, function, /, *arguments):
            raise Misfit("not this")

    with pytest.raises(Misfit, match="not this"):
        layer(VALUES, solver_args={"executor": Choosy()})


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_was_shut_down(layer, kind):
    executor = kind(1)
    executor.shutdown()
    for call in (
        lambda: layer(VALUES, solver_args={"executor": executor}),
        lambda: layer(VALUES[0], solver_args={"executor": executor}),
        lambda: cd.solve(cd.ConeProgram([[-1.0]], [-1.0], [2.0], {"l": 1}), executor=executor),
    ):
        with pytest.raises(cd.ExecutorError, match=r"takes no work \(cannot schedule .*make a new one"):
            call()


@pytest.mark.parametrize("executor", [2, "processes", ThreadPoolExecutor, map])
def test_what_is_no_executor(layer, executor):
    for call in (
        lambda: layer(VALUES, solver_args={"executor": executor}),
        lambda: cd.CvxpyLayer(PROBLEM, [C], [X], solver_args={"executor": executor}),
        lambda: cd.solve(cd.ConeProgram([[-1.0]], [-1.0], [2.0], {"l": 1}), executor=executor),
    ):
        with pytest.raises(TypeError, match=r"must be a concurrent.futures.Executor.*get_executor\(\), got"):
            call()


# ---------------------------------------------------------------------- copies


def test_copies_share_the_executor_and_pickles_leave_it_behind(expected):
    executor = Sent()
    layer = cd.CvxpyLayer(PROBLEM, [C], [X], solver_args={"executor": executor, "tol": 1e-9})
    for twin in (copy.copy(layer), copy.deepcopy(layer)):
        assert twin.settings == layer.settings and twin.settings.executor is executor
        count = len(executor.brought)
        np.testing.assert_allclose(twin(VALUES)[0], expected[0], atol=1e-8)
        assert len(executor.brought) > count
    with pytest.warns(cd.ConediffWarning, match="executor stays behind") as caught:
        content = pickle.dumps(layer)
    assert [warning.filename for warning in caught] == [__file__]
    twin = pickle.loads(content)
    assert twin.settings.executor is None and twin.settings.tol == 1e-9
    np.testing.assert_allclose(twin(VALUES)[0], expected[0], atol=1e-8)


def test_a_layer_without_executor_is_pickled_in_silence(layer):
    assert pickle.loads(pickle.dumps(layer)).settings == layer.settings


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, conediff; "
        "print([m for m in ('multiprocessing', 'concurrent.futures.process', 'distributed', 'dask') "
        "if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_an_executor_nothing_is_sent(layer, monkeypatch):
    monkeypatch.setattr(executors.ExecutorBackend, "map", None)
    layer.solve(VALUES).vjp(WEIGHTS, WEIGHTS[:, 0])


def test_dask_is_asked_how_many_and_told_that_jobs_differ(layer, expected):
    class Client:
        status = "running"

        def nthreads(self):
            return {"one": 2, "other": 1}

    class ClientExecutor(Sent):
        _client = Client()

        def submit(self, function, /, *arguments, pure=True):
            assert pure is False
            return super().submit(function, *arguments)

    ClientExecutor.__module__ = "distributed.cfexecutor"
    executor = ClientExecutor(None)
    assert executors.worker_count(executor) == 3
    check([layer(VALUES, solver_args={"executor": executor})[0]], expected[:1])
    assert sum(executor.brought) == 3
    executor._client.status = "closed"
    assert executors.worker_count(executor) is None

"""The benchmarks' own logic: what is drawn, what counts as right, and what is made of the times."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks import executor, report
from tests.benchmarks.peers import ConediffCore, supports
from tests.benchmarks.problems import BATCHED, LARGE, sparse_qp
from tests.benchmarks.reference import Reference, relative
from tests.benchmarks.worker import Worker


def record(peer, seconds, problem="qp-10", wrong=False, batch=32, mode="cold"):
    half = [s / 2 for s in seconds]
    times = {"forward": half, "backward": half, "total": list(seconds)}
    where = {"problem": problem, "batch": batch, "mode": mode, "environment": "current"}
    return {**where, "peer": peer, "wrong": wrong, **times}


@pytest.mark.parametrize("name", BATCHED)
def test_every_problem_draws_batches_of_its_parameters_shapes(name):
    case = BATCHED[name]()
    assert case.problem.is_dpp()
    large, small = case.batch(3, seed=5), case.batch(2, seed=5)
    for parameter, part, beginning in zip(case.parameters, large, small, strict=True):
        assert part.shape == (3, *parameter.shape)
        np.testing.assert_array_equal(part[:2], beginning)
        assert not np.array_equal(part[0], part[1])


def test_a_path_moves_slowly_from_one_batch_towards_another():
    case = BATCHED["sparsemax-10"]()
    path = case.path(2, seed=0, steps=3)
    np.testing.assert_array_equal(path[0][0], case.batch(2, seed=0)[0])
    gap = case.batch(2, seed=1)[0] - case.batch(2, seed=0)[0]
    np.testing.assert_allclose(path[2][0] - path[1][0], 0.005 * gap, atol=1e-15)


def test_errors_are_relative_and_a_nan_is_wrong():
    right = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    found = np.array([[3.0, 4.5], [0.0, 0.1], [np.nan, 0.0]])
    np.testing.assert_allclose(relative(found, right, floor=1.0), [0.1, 0.1, np.inf])


def test_conediff_on_matrices_agrees_with_its_layer_and_with_clarabel():
    case = sparse_qp(40)
    values = case.batch(1, seed=0)
    reference = Reference.of(case, values)
    assert reference.confirmed
    peer = ConediffCore(case)
    prepared = peer.prepare(values)
    solved = peer.forward(prepared, False)
    answer = peer.answer(prepared, solved, peer.backward(solved, case.cotangents(1)))
    assert max(reference.errors(*answer)) < 1e-6
    shifted = tuple(part + 0.1 for part in answer[0]), answer[1]
    assert reference.errors(*shifted)[0] > 1e-2


def test_a_worker_answers_and_survives_a_failure():
    import sys

    worker = Worker(sys.executable, "conediff-core", {"PYTHONPATH": ":".join(p for p in sys.path if p)})
    try:
        assert "cvxpy" in worker.ask("versions")
        with pytest.raises(RuntimeError, match="KeyError"):
            worker.ask("state", "no such problem")
        forward, backward, both = worker.ask("measure", "sparse-1e3", 1, "cold", 0, 1, 0.01)
        assert 0 < forward < both and 0 < backward < both
    finally:
        worker.close()


def test_ratios_are_taken_round_by_round():
    (pair,) = report.pairs([record("conediff", [1.0, 2.0]), record("cvxpylayers", [10.0, 40.0, 5.0])])
    np.testing.assert_allclose(pair.ratios("total"), [10, 20])


def test_targets_hold_for_the_mean_and_for_each_problem():
    records = [
        record("conediff", [1.0]),
        record("cvxpylayers", [100.0]),
        record("conediff", [1.0], problem="polytope"),
        record("cvxpylayers", [4.0], problem="polytope"),
    ]
    line = targets_at_32(records)
    assert "20.00 of 15 over 2, reached" in line
    records[-1]["total"] = [3.0]
    assert "17.32 of 15 over 2, MISSED; below 4: polytope 3.00" in targets_at_32(records)


def test_wrong_answers_win_nothing():
    records = [
        record("conediff", [1.0]),
        record("cvxpylayers", [20.0]),
        record("conediff", [1.0], problem="polytope"),
        record("cvxpylayers", [1e-3], problem="polytope", wrong=True),
    ]
    assert "20.00 of 15 over 1, reached" in targets_at_32(records)
    records[2]["wrong"] = True
    assert "20.00 of 15 over 1, MISSED" in targets_at_32(records)


def targets_at_32(records):
    lines = report.targets(report.pairs(records)).splitlines()
    return next(line for line in lines if "cvxpylayers, cold, B = 32" in line)


def test_no_peer_is_asked_what_it_cannot_state():
    assert [name for name in [*BATCHED, *LARGE] if supports("qpth", name)] == ["qp-10", "qp-50"]
    assert not supports("moreau", "correlation-10")
    assert supports("cvxpylayers", "correlation-10")


def test_ways_to_spread_a_batch_are_timed_and_agree(capsys):
    executor.main(["sparsemax-10:70", "--rounds", "2", "--workers", "1"])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["batch", "1", "thread", "threads", "processes", "difference"]
    assert row.startswith("sparsemax-10:70") and row.count("x)") == 3 and float(row.split()[-1]) < 1e-9

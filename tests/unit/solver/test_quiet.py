"""What SCS prints is dropped, and what other threads print is not; ctrl-C while Clarabel runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse as sp

import conediff as cd
from conediff.parallel.interrupts import interrupts_noted
from conediff.solver.quiet import nothing_printed


class TestNothingPrinted:
    def test_only_this_thread_is_silent(self, capsys):
        before = sys.stdout
        with nothing_printed():
            print("dropped")
            with nothing_printed():
                print("dropped")
            other = threading.Thread(target=print, args=("kept",))
            other.start()
            other.join()
        print("after")
        assert sys.stdout is before
        assert capsys.readouterr().out == "kept\nafter\n"

    def test_errors_pass_and_output_is_restored(self, capsys):
        with pytest.raises(ZeroDivisionError), nothing_printed():
            raise ZeroDivisionError
        print("after")
        assert capsys.readouterr().out == "after\n"

    def test_another_stdout_that_is_set_meanwhile_stays(self, monkeypatch, tmp_path):
        with (tmp_path / "out").open("w") as mine, nothing_printed():
            monkeypatch.setattr(sys, "stdout", mine)
        assert sys.stdout is mine

    def test_without_a_console(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        with nothing_printed():
            assert sys.stdout is None


def test_scs_prints_nothing(capsys):
    """At its limit of 25 iterations SCS cannot say whether this program is infeasible, and prints so."""
    rng = np.random.default_rng(20)
    A, x, s = rng.standard_normal((6, 4)), rng.standard_normal(4), np.abs(rng.standard_normal(6))
    s *= rng.random(6) < 0.6
    y = np.abs(rng.standard_normal(6)) * (s == 0)
    A = np.vstack([A, np.eye(4), -np.eye(4)])
    s, y = np.r_[s, 1 + np.abs(rng.standard_normal(8))], np.r_[y, np.zeros(8)]
    a = rng.standard_normal(4)
    b, c, A = np.r_[A @ x + s, -1, -1], -A.T @ y, np.vstack([A, a, -a])
    rows, columns = 10 ** rng.uniform(-8, 8, 16), 10 ** rng.uniform(-4, 4, 4)
    program = cd.ConeProgram(A * rows[:, None] * columns, b * rows, c * columns, {"l": 16})
    assert cd.solve(program, on_failure="nan").status == "infeasible"
    assert capsys.readouterr().out == ""
    cd.solve(program, on_failure="nan", verbose=True)
    assert "could not determine" in capsys.readouterr().out


class TestInterrupts:
    def test_are_noted_and_raised_at_the_end(self):
        reached = False
        with pytest.raises(KeyboardInterrupt), interrupts_noted() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted("any", "arguments")
            reached = True
        assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_other_threads_change_nothing(self):
        handlers = []

        def look():
            with interrupts_noted() as interrupted:
                handlers.append((signal.getsignal(signal.SIGINT), interrupted()))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert handlers == [(signal.getsignal(signal.SIGINT), False)]

    def test_clarabel_stops_at_its_next_iteration(self, monkeypatch):
        rng, calls = np.random.default_rng(0), []
        A = sp.csc_array(rng.standard_normal((60, 20)))
        program = cd.ConeProgram(A, np.ones(60), A.T @ -np.ones(60), {"l": 60})

        def counted(interrupted):
            def call(*arguments):
                calls.append(len(calls))
                if len(calls) == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                return interrupted(*arguments)

            return call

        @contextmanager
        def noted():
            with interrupts_noted() as interrupted:
                yield counted(interrupted)

        monkeypatch.setattr("conediff.solver.clarabel.interrupts_noted", noted)
        with pytest.raises(KeyboardInterrupt):
            cd.solve(program, solver="clarabel")
        assert 3 <= len(calls) <= 4

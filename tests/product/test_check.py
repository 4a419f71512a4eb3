"""The self-test passes here, and fails, naming what is wrong, where something is wrong."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from conediff.__main__ import main
from conediff.cli import check, check_cases
from conediff.cli import info as installed
from conediff.cones import registry


@pytest.fixture
def alone(monkeypatch):
    """NumPy only: frameworks take seconds to import."""
    monkeypatch.setattr(check, "FRAMEWORKS", ())


def failures(capsys):
    """Run the command; return its exit code and the names of the checks that failed."""
    code, out = main(["check"]), capsys.readouterr().out
    named = [line.partition(":")[0].removeprefix("FAIL  ") for line in out.splitlines() if "FAIL" in line]
    if named:
        assert "WRONG answers" in out and "python -m conediff info" in out
        assert all(name in out.splitlines()[-3] for name in named)
    return code, named


def test_all_is_well_here_and_no_picture_is_needed():
    code = "import sys; sys.modules['matplotlib'] = None\n"  # which cannot be imported then
    code += "from conediff.__main__ import main; sys.exit(main(['check']))"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=paths
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "This installation gives right answers" in result.stdout.splitlines()[-1]
    for framework in installed.FRAMEWORKS:
        mark = "ok    " if framework.installed else "--    "
        assert f"{mark}{framework.name}" in result.stdout


@pytest.mark.parametrize("case", check_cases.CASES, ids=lambda case: case.name)
def test_every_cone_is_looked_at_closely(case):
    off = dataclasses.replace(case, dx=case.dx + 1e-3 * np.abs(case.dx).max())
    assert check_cases.measure_errors(off)["gradient"] > 5e-4
    off = dataclasses.replace(case, x=case.x + 1e-3 * np.abs(case.x).max())
    assert check_cases.measure_errors(off)["value"] > 5e-4
    assert max(check_cases.measure_errors(case).values()) < check.TOLERANCE


def test_every_kind_of_cone_is_there():
    kinds = {key for case in check_cases.CASES for key, value in case.program.cones.items() if value}
    assert kinds == {key for kind in registry.KINDS for key in kind.keys}
    assert {np.sign(p) for case in check_cases.CASES for p in case.program.cones.get("p", ())} == {1, -1}


def test_a_wrong_derivative_of_one_cone_is_found(alone, monkeypatch, capsys):
    from conediff.cones.second_order import SecondOrderProjection

    right = SecondOrderProjection.derivative

    def wrong(self):
        D = right(self)
        return dataclasses.replace(D, eig_orthogonal=1.001 * D.eig_orthogonal)

    monkeypatch.setattr(SecondOrderProjection, "derivative", wrong)
    code, named = failures(capsys)
    assert code == 1
    assert "second-order cone" in named and "exponential cone" not in named


def test_wrong_gradients_are_found_by_every_check_of_gradients(alone, monkeypatch, capsys):
    from conediff.derivative import StackDerivative
    from conediff.program import ConeData

    right = StackDerivative.pull

    def wrong(self, *cotangents):
        g = right(self, *cotangents)
        return ConeData(*(1.001 * part for part in (g.P, g.A, g.b, g.c)))

    monkeypatch.setattr(StackDerivative, "pull", wrong)
    code, named = failures(capsys)
    assert code == 1
    assert len(named) == len(list(check.list_checks())) - 1  # threads agree on what is wrong


def test_what_depends_on_threads_is_found(alone, monkeypatch, capsys):
    import conediff.layer.layer

    right = conediff.layer.LayerSolution

    def wrong(*solved):
        result, settings = solved[-2:]
        result.x = result.x * (1 + 1e-15 * (settings.threads or 1))
        return right(*solved)

    monkeypatch.setattr(conediff.layer.layer, "LayerSolution", wrong)
    assert failures(capsys) == (1, ["threads"])


def test_a_warning_that_is_missing_is_found(alone, monkeypatch, capsys):
    from conediff.derivative.report import Report

    monkeypatch.setattr(Report, "warn_degenerate", lambda *_: None)
    assert failures(capsys) == (1, ["no derivative"])


def test_an_infeasible_element_that_is_not_named_is_found(alone, monkeypatch, capsys):
    from conediff.layer import LayerSolution

    right = LayerSolution.status.fget
    wrong = property(lambda self: np.where(right(self) == "infeasible", "unbounded", right(self)))
    monkeypatch.setattr(LayerSolution, "status", wrong)
    assert failures(capsys) == (1, ["infeasible element in a batch"])


def test_an_error_is_a_failure_and_the_others_are_still_run(alone, monkeypatch, capsys):
    def broken():
        raise RuntimeError("no\n\nroom")

    monkeypatch.setattr(check, "check_geometric_program", broken)
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  geometric program: RuntimeError: no room\n" in out
    assert "ok    threads" in out


def test_a_missing_warning_is_found(alone, monkeypatch, capsys):
    monkeypatch.setattr("conediff.derivative.report.warn", lambda *_: None)
    code, named = failures(capsys)
    assert code == 1 and named == ["no derivative"]


def test_a_wrong_gradient_of_torch_is_found(monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(check, "FRAMEWORKS", installed.FRAMEWORKS[:1])
    monkeypatch.setattr(check, "CASES", ())
    from conediff_torch._solved import Solved

    pull = Solved.pull

    def wrong(self, *arguments):
        *gradients, multipliers = pull(self, *arguments)
        return [*(1.001 * gradient for gradient in gradients), multipliers]

    monkeypatch.setattr(Solved, "pull", wrong)
    code, named = failures(capsys)
    assert code == 1 and named == ["PyTorch"]


@pytest.mark.parametrize(("package", "name"), [("jax", "JAX"), ("mlx.core", "MLX")])
def test_a_wrong_gradient_of_jax_and_mlx_is_found(package, name, monkeypatch, capsys):
    pytest.importorskip(package, exc_type=ImportError)
    monkeypatch.setattr(check, "FRAMEWORKS", [f for f in installed.FRAMEWORKS if f.name == name])
    monkeypatch.setattr(check, "CASES", ())
    from conediff.layer.solution import LayerSolution

    pull = LayerSolution.vjp

    def wrong(self, *cotangents, **more):
        caller = sys._getframe(1).f_globals["__name__"]
        factor = 1.001 if caller.startswith(("conediff_jax", "conediff_mlx")) else 1
        return tuple(g if g is None else g * factor for g in pull(self, *cotangents, **more))

    monkeypatch.setattr(LayerSolution, "vjp", wrong)
    code, named = failures(capsys)
    assert code == 1 and named == [name]


def test_frameworks_that_are_not_there_are_said_to_be_unchecked(monkeypatch, capsys):
    missing = installed.Framework("Abacus", "no_such_abacus", "conediff.abacus")
    monkeypatch.setattr(check, "FRAMEWORKS", (missing,))
    monkeypatch.setattr(check, "CASES", ())
    assert main(["check"]) == 0
    assert (
        '--    Abacus: not installed, so not checked; pip install ".[abacus]" in a checkout of conediff'
        in capsys.readouterr().out
    )

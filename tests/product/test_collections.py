"""The runner of public collections: what it reports, how it survives, and what its remarks call wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import collection_report as report
from tests.benchmarks import collections as runner
from tests.benchmarks.collection_worker import measure

pytest.importorskip("clarabel")

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs" / "collections.md", ROOT / "docs" / "figures" / "data" / "collections.json"
SDPA = "1\n1\n2\n1.0\n0 1 1 1 {first}\n0 1 1 2 1.0\n1 1 1 1 1.0\n1 1 2 2 1.0\n"


@pytest.fixture
def folder(tmp_path):
    """Two problems that are solved, one that is refused, and one whose file is broken."""
    here = tmp_path / "tiny"
    here.mkdir()
    for name, first in (("one", 2.0), ("two", -2.0)):
        (here / f"{name}.dat-s").write_text(SDPA.format(first=first))
    (here / "broken.dat-s").write_text("1\n1\n2\n1.0\n0 1 5 5 1.0\n")
    (here / "whole.cbf").write_text("VER\n1\nOBJSENSE\nMIN\nVAR\n1 1\nL+ 1\nINT\n1\n0\n")
    return here


def record(**changes):
    """What is measured on a problem without remarks."""
    reference = {"status": "solved", "seconds": 0.5, "iterations": 9, "objective": 3.0, "own_residual": 1e-9}
    ours = {"status": "solved", "objective": 3.0, "residual": 1e-12, "own_residual": 1e-12, "warnings": []}
    steps = {"iterations": 25, "refinements": 2, "adjoint": 1e-12, "vjp_residual": 1e-13, "jvp_residual": 0.0}
    times = {"solve_seconds": 0.2, "vjp_seconds": 0.1, "jvp_seconds": 0.1}
    where = {"collection": "set", "problem": "p", "n": 2, "m": 3}
    return {**where, **ours, **steps, **times, "clarabel": reference, "scs": dict(reference), **changes}


def test_the_command_measures_saves_and_prints(folder, capsys):
    runner.main([str(folder.parent), "--json", str(folder / "out.json"), "--limit", "60"])
    printed = capsys.readouterr().out
    results = json.loads((folder / "out.json").read_text())
    names = [found["problem"] for found in results["records"]]
    assert names == ["broken", "one", "two", "whole"]
    by_name = {found["problem"]: found for found in results["records"]}
    assert by_name["one"]["status"] == by_name["two"]["status"] == "solved"
    assert by_name["one"]["objective"] == pytest.approx(1 + 2**0.5)  # eigenvalue of [[2, 1], [1, 0]]
    assert by_name["one"]["adjoint"] < 1e-9
    assert report.remarks(by_name["one"]) == {}
    assert by_name["broken"]["status"] == by_name["whole"]["status"] == "refused"
    assert "integer variables" in by_name["whole"]["detail"]
    assert all(name in printed for name in names)
    runner.main([str(folder / "out.json")])  # the same without measuring
    assert capsys.readouterr().out == printed


def test_a_pattern_chooses_and_an_empty_choice_is_an_error(folder, capsys):
    runner.main([str(folder.parent), "--only", "TINY/o*", "--limit", "60"])
    printed = capsys.readouterr().out
    assert "\none " in printed and "\ntwo " not in printed
    with pytest.raises(SystemExit, match="no file below"):
        runner.main([str(folder.parent), "--only", "nothing"])


def test_a_process_that_takes_too_long_is_ended_and_reported(folder):
    found = measure(folder / "one.dat-s", limit=0.01)
    assert found["stopped"] == "time limit of 0.01 s"
    assert "stopped" in report.remarks(found) and "stage: read" in report.remarks(found)["stopped"]
    assert len(report.row(found)) == len(report.HEAD)


def test_a_process_that_ends_early_is_reported_with_its_last_words(folder):
    (folder / "nonsense.mat").write_text("no MATLAB file, and longer than its header would be" * 9)
    found = measure(folder / "nonsense.mat", limit=60)
    assert found["stopped"].startswith("ended with code 1: ") and found["stage"] == "read"


@pytest.mark.parametrize(
    "changes, kinds",
    [
        ({}, set()),
        ({"objective": 3.0001}, {"objective"}),
        ({"objective": 3.0000001}, set()),
        ({"own_residual": 1e-7}, {"residual"}),
        ({"own_residual": None}, {"residual"}),
        ({"status": "inaccurate"}, {"inaccurate"}),
        ({"status": "failed"}, {"failed"}),
        ({"status": "infeasible"}, {"status"}),
        ({"solve_seconds": 2.4}, set()),
        ({"solve_seconds": 2.6}, {"slow solve"}),
        ({"vjp_seconds": 1.3}, {"slow derivative"}),
        ({"jvp_seconds": 1.3}, {"slow derivative"}),
        ({"adjoint": 1e-3}, {"adjoint"}),
        ({"adjoint": None}, {"adjoint"}),
        ({"vjp_residual": 1e-3}, {"linear"}),
        ({"vjp_residual": 1e-3, "warnings": [{"kind": "DegeneracyWarning", "stage": "vjp"}]}, {"degenerate"}),
        (
            {"warnings": [{"kind": "AccuracyWarning", "stage": "jvp", "message": "m"}]},
            {"inaccurate derivative"},
        ),
        ({"stopped": "time limit of 1 s", "stage": "vjp"}, {"stopped"}),
    ],
)
def test_remarks_name_what_is_wrong(changes, kinds):
    assert set(report.remarks(record(**changes))) == kinds


def test_what_the_references_call_infeasible_must_not_be_solved():
    references = {
        name: {"status": "infeasible", "seconds": 0.1, "own_residual": 0.0} for name in ("scs", "clarabel")
    }
    assert "status" in report.remarks(record(**references))
    assert report.remarks(record(status="infeasible", **references)) == {}
    assert report.expected(record(scs=references["scs"])) is None  # they disagree
    unfounded = {**references["scs"], "own_residual": 0.1}
    assert report.expected(record(scs=unfounded)) == "solved"


def test_the_page_shows_the_results_that_lie_beside_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    runner.write_page(page, json.loads(RESULTS.read_text(encoding="utf-8")))
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_page_without_marks_is_left_alone(tmp_path):
    (tmp_path / "page.md").write_text("text")
    with pytest.raises(SystemExit, match="needs the marks"):
        runner.write_page(tmp_path / "page.md", {"records": []})

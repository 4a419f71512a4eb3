"""What the measurements of a collection say: a table, and remarks on what is wrong or slow, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tests.benchmarks.readers.files import READERS

Record = dict[str, Any]

OBJECTIVE = 1e-6  # largest error of an objective, relative to the larger of one and Clarabel's
RESIDUAL = 1e-9  # largest KKT residual of what is called solved without a warning: 10 tol
ADJOINT = 1e-8  # largest error of the adjoint identity
LINEAR = 1e-10  # largest relative residual of a linear system without a warning
CONFIRMED = 1e-4  # largest independent residual at which a reference's status counts
SLOW_FACTOR = 3.0  # a solve may take so many times the faster of SCS and Clarabel, and
SLACK = 1.0  # so many seconds more; a vjp or a jvp may take so many seconds more than the solve

SOLVED = ("solved", "inaccurate")
DECIDED = ("solved", "infeasible", "unbounded")

KINDS = {
    "stopped": "The process did not reach its end",
    "status": "Another status than the references'",
    "failed": "No solution found",
    "objective": f"An objective that differs from Clarabel's by more than {OBJECTIVE:g}",
    "residual": f"Called solved without a warning, but the independent residual is above {RESIDUAL:g}",
    "inaccurate": "A solution with an AccuracyWarning",
    "inaccurate derivative": "A vjp or a jvp with an AccuracyWarning",
    "adjoint": f"The adjoint identity is off by more than {ADJOINT:g}",
    "linear": f"The linear residual of a derivative is above {LINEAR:g} without a warning",
    "slow solve": f"A solve takes longer than {SLOW_FACTOR:g} x the faster of SCS and Clarabel + {SLACK:g} s",
    "slow derivative": f"A vjp or a jvp takes longer than the solve plus {SLACK:g} s",
    "refused": "Refused",
    "degenerate": "A DegeneracyWarning",
}

HEAD = (
    "problem",
    "n",
    "m",
    "status",
    "solve",
    "vjp",
    "jvp",
    "SCS",
    "Clarabel",
    "iterations",
    "residual",
    "independent",
    "to Clarabel",
    "to SCS",
    "adjoint",
    "linear",
    "remarks",
)


def expected(record: Record) -> str | None:
    """Return the status that Clarabel and SCS agree on, or that one of them alone decides; None otherwise.

    A reference decides where its status is one of `DECIDED` and its point, or certificate, passes the
    independent check.
    """
    decided = {
        reference["status"]
        for reference in (record.get("clarabel"), record.get("scs"))
        if reference and reference["status"] in DECIDED and not _above(reference["own_residual"], CONFIRMED)
    }
    return decided.pop() if len(decided) == 1 else None


def objective_error(record: Record, reference: str) -> float | None:
    """Return by how much the objective differs from a reference's, relative to the larger of one and its own.

    None unless conediff and the reference have solutions.
    """
    theirs = record.get(reference, {})
    if record.get("status") not in SOLVED or theirs.get("status") not in SOLVED:
        return None
    ours, right = record.get("objective"), theirs.get("objective")
    if ours is None or right is None:
        return None
    return float(abs(ours - right) / max(1.0, abs(right)))


def linear_residual(record: Record) -> float | None:
    """Return the larger of the residuals of vjp and jvp, if both are known."""
    found = [record.get(name) for name in ("vjp_residual", "jvp_residual")]
    return None if None in found else max(found)  # type: ignore[type-var]


def remarks(record: Record) -> dict[str, str]:
    """Return what is wrong, slow or worth knowing about a problem: a figure for each kind of `KINDS`."""
    found: dict[str, str] = {}
    status, right = record.get("status"), expected(record)
    if "stopped" in record:
        found["stopped"] = f"{record['stopped']} (stage: {record['stage']})"
    if status == "refused":
        confirmed = "; confirmed: P has a negative eigenvalue" if record.get("convex") is False else ""
        found["refused"] = record["detail"] + confirmed
        return found
    if status in SOLVED and right in ("infeasible", "unbounded"):
        found["status"] = f"{status}, for {right}"
    if status in ("infeasible", "unbounded") and right not in (status, None):
        found["status"] = f"{status}, for {right}"
    if status == "failed":
        found["failed"] = f"residual {_figure(record.get('residual'))}; {_references(record)}"
    told = {warning["kind"] for warning in record.get("warnings", ())}
    if status == "inaccurate":
        found["inaccurate"] = f"residual {_figure(record['residual'])}; {_references(record)}"
    derivative = {
        w["stage"]: w["message"] for w in record.get("warnings", ()) if w["kind"] == "AccuracyWarning"
    }
    derivative.pop("solve", None)
    if derivative:
        found["inaccurate derivative"] = ", ".join(derivative)
    found |= _errors(record, told) | _times(record, right)
    if "DegeneracyWarning" in told:
        found["degenerate"] = ""
    return found


def _errors(record: Record, told: set[str]) -> dict[str, str]:
    found = {}
    error = objective_error(record, "clarabel")
    if error is not None and error > OBJECTIVE and record["clarabel"]["status"] == "solved":
        silent = "" if record["status"] == "inaccurate" else ", silently"
        found["objective"] = (
            f"{error:.1e}{silent}; independent residuals: conediff {_figure(record['own_residual'])}, "
            f"Clarabel {_figure(record['clarabel']['own_residual'])}, "
            f"SCS {_figure(record['scs']['own_residual'])}"
        )
    if record.get("status") == "solved" and _above(record.get("own_residual"), RESIDUAL):
        found["residual"] = f"{_figure(record['own_residual'])}, conediff's own {_figure(record['residual'])}"
    if "adjoint" in record and _above(record["adjoint"], ADJOINT):
        found["adjoint"] = _figure(record["adjoint"])
    if "vjp_residual" in record and not told and _above(linear_residual(record), LINEAR):
        figures = (_figure(record[name]) for name in ("vjp_residual", "jvp_residual"))
        found["linear"] = "vjp {}, jvp {}".format(*figures)
    return found


def _times(record: Record, right: str | None) -> dict[str, str]:
    found = {}
    ours = record.get("solve_seconds")
    if ours is None:
        return found
    fair = [r["seconds"] for r in map(record.get, ("clarabel", "scs")) if r and r["status"] == right]
    if fair and ours > SLOW_FACTOR * min(fair) + SLACK:
        found["slow solve"] = f"{ours:.1f} s; {_references(record)}"
    slowest = max(record.get("vjp_seconds", 0.0), record.get("jvp_seconds", 0.0))
    if slowest > ours + SLACK:
        parts = (f"{name} {_seconds(record.get(name + '_seconds'))} s" for name in ("solve", "vjp", "jvp"))
        found["slow derivative"] = ", ".join(parts)
    return found


def _above(value: float | None, limit: float) -> bool:
    """Return whether a number is above its limit; one that is not finite is."""
    return value is None or value > limit


def _references(record: Record) -> str:
    def said(name: str, key: str) -> str:
        reference = record[key]
        return f"{name} {reference['status']} in {_seconds(reference['seconds'])} s"

    return ", ".join([said("SCS", "scs"), said("Clarabel", "clarabel")])


def _figure(value: float | None) -> str:
    if value is None or value == 0:
        return "-" if value is None else "0"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.1f}"


def row(record: Record) -> list[str]:
    """Return a problem's row of the table, in the columns of `HEAD`."""

    def reference(name: str) -> str:
        theirs = record.get(name)
        if theirs is None:
            return "-"
        mark = "" if theirs["status"] in DECIDED else " (?)"
        return f"{_seconds(theirs['seconds'])}{mark}"

    status = record.get("status") or "-"
    times = [_seconds(record.get(f"{name}_seconds")) for name in ("solve", "vjp", "jvp")]
    steps = f"{record['iterations']} + {record['refinements']}" if "iterations" in record else "-"
    return [
        record["problem"],
        str(record.get("n", "-")),
        str(record.get("m", "-")),
        status,
        *times,
        reference("scs"),
        reference("clarabel"),
        steps,
        _figure(record.get("residual")),
        _figure(record.get("own_residual")),
        _figure(objective_error(record, "clarabel")),
        _figure(objective_error(record, "scs")),
        _figure(record.get("adjoint")),
        _figure(linear_residual(record)),
        ", ".join(remarks(record)),
    ]


def line(cells: Sequence[str]) -> str:
    """Return a row of the table as plain text."""
    widths = (-11, 5, 6, 11, 8, 8, 8, 9, 9, 12, 9, 12, 12, 8, 8, 8)
    pairs = zip(cells[:-1], widths, strict=True)
    padded = [f"{cell:>{width}}" if width > 0 else f"{cell:{-width}}" for cell, width in pairs]
    return " ".join([*padded, cells[-1]]).rstrip()


def markdown(results: Record) -> str:
    """Return a summary, a table for every collection, and the remarks by kind, as Markdown."""
    records = results["records"]
    parts = [_conditions(results), _summary(records)]
    for name in dict.fromkeys(record["collection"] for record in records):
        rows = [row(record) for record in records if record["collection"] == name]
        parts += [f"### {name}", _table(HEAD, rows)]
    return "\n\n".join([*parts, "### What fails, is inaccurate or is slow", *_by_kind(records)])


def by_kind(records: Iterable[Record]) -> dict[str, list[tuple[str, str]]]:
    """Return for each kind of `KINDS` that occurs the problems, with their figures."""
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for record in records:
        for kind, figure in remarks(record).items():
            found[kind].append((record["problem"], figure))
    return {kind: problems for kind, problems in found.items() if problems}


def _by_kind(records: list[Record]) -> list[str]:
    parts = []
    for kind, problems in by_kind(records).items():
        said = [f"{name} ({figure})" if figure else name for name, figure in problems]
        separator = "; " if any(figure for _, figure in problems) else ", "
        parts.append(f"**{KINDS[kind]}** (*{kind}*, {len(problems)}): {separator.join(said)}.")
    return parts or ["Nothing."]


def _conditions(results: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    load = f", {results['load']} processes busy before the run" if "load" in results else ""
    return f"Measured on {results['machine']}{load}, with {versions}; limit {results['limit']:g} s."


def _summary(records: list[Record]) -> str:
    head = (
        "collection",
        "problems",
        "as the references say",
        "Clarabel's objective",
        "1e-10 reached",
        "no remark",
    )
    rows = []
    for name in dict.fromkeys(record["collection"] for record in records):
        own = [record for record in records if record["collection"] == name]
        flags = [remarks(record) for record in own]
        errors = [objective_error(record, "clarabel") for record in own]
        rows.append(
            [
                name,
                str(len(own)),
                str(sum(r.get("status") in DECIDED and r["status"] == expected(r) for r in own)),
                str(sum(e is not None and e <= OBJECTIVE for e in errors)),
                str(sum(not _above(r.get("own_residual"), 1e-10) for r in own)),
                str(sum(set(found) <= {"degenerate"} for found in flags)),
            ]
        )
    return _table(head, rows)


def _table(head: Sequence[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def formats() -> str:
    """Return the endings of files that have readers."""
    return ", ".join(READERS)

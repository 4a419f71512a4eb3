"""One problem of a collection in a process of its own: read, solved by all three, differentiated, checked.

`measure` is the asking side. The asked side, ``python -m tests.benchmarks.collection_worker FILE LIMIT``,
prints one JSON object per line as soon as it knows more, so that a hang or a crash loses only what comes
after it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import conediff as cd
from tests.benchmarks import judge
from tests.benchmarks.readers.files import name_of, read
from tests.benchmarks.readers.problem import FormatError, Problem
from tests.benchmarks.solvers import Answer, by_clarabel, by_scs

Record = dict[str, Any]
REFERENCE_SHARE = 0.25  # of the limit, for each of SCS and Clarabel
LARGEST_DENSE = 3000  # variables up to which the smallest eigenvalue of P is computed


def measure(path: Path, limit: float) -> Record:
    """Measure one problem in a process of its own.

    Parameters
    ----------
    path : Path
    limit : float
        Seconds for SCS and Clarabel together, and again for everything that conediff does.

    Returns
    -------
    dict
        What was known in the end. ``stopped`` says why the process did not reach its end, if so.
    """
    record: Record = {"collection": path.parent.name, "problem": name_of(path), "stage": "read"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.collection_worker", str(path.resolve()), str(limit)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_forward, args=(process, lines), daemon=True).start()
        try:
            if not _follow(lines, record, limit):
                record["stopped"] = f"time limit of {limit:g} s"
            elif process.wait():
                errors.seek(0)
                said = errors.read().strip().splitlines()
                record["stopped"] = f"ended with code {process.returncode}: {said[-1] if said else ''}"
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
    if "stopped" not in record:
        del record["stage"]
    return record


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _follow(lines: queue.Queue[str | None], record: Record, limit: float) -> bool:
    """Read until the process ends; return False if it takes too long."""
    deadline = time.monotonic() + limit
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if line is None:
            return True
        news = json.loads(line)
        record.update(news)
        if news.get("stage") == "solve":
            deadline = time.monotonic() + limit


def stages(path: Path, limit: float) -> Iterator[Record]:
    """Yield what is known about a problem, piece by piece."""
    try:
        problem = read(path)
    except FormatError as error:
        yield {"status": "refused", "detail": str(error)}
        return
    program = problem.program
    yield {
        "n": program.n,
        "m": program.m,
        "nonzeros": program.A.nnz + program.P.nnz,
        "cones": _kinds(program),
    }
    yield {"convex": _is_convex(program), "stage": "references"}
    for name, solver in (("clarabel", by_clarabel), ("scs", by_scs)):
        yield {name: _reference(problem, solver(program, REFERENCE_SHARE * limit))}
    _warm_up()
    yield {"stage": "solve"}
    yield from _ours(problem)


def _ours(problem: Problem) -> Iterator[Record]:
    """Solve and differentiate by conediff."""
    program, told = problem.program, []
    start = time.perf_counter()
    try:
        solution, told = _listened("solve", lambda: cd.solve(program))
    except cd.ProblemError as error:
        yield {"status": "refused", "detail": str(error)}
        return
    except cd.SolverError as error:
        solution = error.solutions[0]
        yield {"detail": str(error)}
    yield {"solve_seconds": time.perf_counter() - start, **_solution(problem, solution), "warnings": told}
    if solution.status not in ("solved", "inaccurate"):
        return
    rng = np.random.default_rng(0)
    u, tangent = rng.standard_normal(program.n), _tangent(program, rng)
    dP, dA, db, dc = tangent
    yield {"stage": "vjp"}
    g, seconds, more = _timed("vjp", lambda: solution.derivative().vjp(dx=u))
    told = told + more
    yield {"vjp_seconds": seconds, "warnings": told, "stage": "jvp"}
    answer, seconds, more = _timed("jvp", lambda: solution.derivative().jvp(dP=dP, dA=dA, db=db, dc=dc))
    yield {"jvp_seconds": seconds, "warnings": told + more, "stage": "check"}
    point = solution.x, solution.y, solution.s
    jvp, vjp = judge.linear_residuals(program, point, tangent, answer, u, g)
    yield {"jvp_residual": jvp, "vjp_residual": vjp, "adjoint": judge.adjoint_error(tangent, answer, u, g)}


def _tangent(program: cd.ConeProgram, rng: np.random.Generator) -> tuple[Any, ...]:
    """Return every number of the data times a normal one: a change that does not depend on units."""
    dP, dA = program.P, program.A
    dP.data = dP.data * rng.standard_normal(dP.nnz)
    dA.data = dA.data * rng.standard_normal(dA.nnz)
    db, dc = program.b * rng.standard_normal(program.m), program.c * rng.standard_normal(program.n)
    return (dP + dP.T) / 2, dA, db, dc


def _timed(stage: str, work: Callable[[], Any]) -> tuple[Any, float, list[Record]]:
    start = time.perf_counter()
    result, told = _listened(stage, work)
    return result, time.perf_counter() - start, told


def _listened(stage: str, work: Callable[[], Any]) -> tuple[Any, list[Record]]:
    """Return a result, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    told = [{"stage": stage, "kind": w.category.__name__, "message": f"{w.message!s:.200}"} for w in caught]
    return result, told


def _solution(problem: Problem, solution: Any) -> Record:
    point = solution.x, solution.y, solution.s
    found = {name: solution.info[name] for name in ("iterations", "refinements", "residual")}
    return {"status": solution.status, **found, **_judged(problem, solution.status, *point)}


def _reference(problem: Problem, answer: Answer) -> Record:
    found = {"status": answer.status, "seconds": answer.seconds, "iterations": answer.iterations}
    return {**found, **_judged(problem, answer.status, answer.x, answer.y, answer.s)}


def _judged(problem: Problem, status: str, x: Any, y: Any, s: Any) -> Record:
    """Return the objective and the residual of the point, or the residual of the certificate."""
    if status in ("infeasible", "unbounded"):
        return {"own_residual": judge.certificate_residual(problem.program, status, x, y, s)}
    return {"objective": problem.objective(x), "own_residual": judge.kkt_residual(problem.program, x, y, s)}


def _is_convex(program: cd.ConeProgram) -> bool | None:
    """Return whether P has no negative eigenvalue beyond rounding; None where P is too large to tell."""
    P = program.P
    if not P.nnz:
        return True
    if program.n > LARGEST_DENSE:
        return None
    eigenvalues = np.linalg.eigvalsh(P.toarray())
    return bool(eigenvalues[0] >= -1e-9 * abs(eigenvalues[-1]))


def _kinds(program: cd.ConeProgram) -> Record:
    """Return the number of rows, or for lists of cones the number of cones, of each kind."""
    return {kind: len(v) if isinstance(v, list) else v for kind, v in program.cones.items()}


def _warm_up() -> None:
    """Do once what only the first call of a process does: imports, threads."""
    program = cd.ConeProgram(np.array([[-1.0]]), [-1.0], [2.0], {"l": 1}, np.eye(1))
    cd.solve(program).derivative().vjp(dx=np.ones(1))


def _plain(value: Any) -> Any:
    """Return what JSON can say; None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def main(path: str, limit: str) -> None:
    """Print what is known, line by line."""
    # What solvers print must not reach the pipe.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for news in stages(Path(path), float(limit)):
        replies.write(json.dumps(_plain(news)) + "\n")
        replies.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Time and memory of sparse programs as they grow: ``python -m tests.benchmarks.memory``.

Each program is solved and differentiated in a process of its own, which receives its matrices, so that what
cvxpy needs to build them is left out; the peak is the operating system's, beyond what there was before.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import conediff as cd
from tests.benchmarks.environments import search_path
from tests.benchmarks.peers import ConediffCore
from tests.benchmarks.problems import GROWING

LINEAR = 1.2  # exponent of growth between the two largest that still counts as linear
COLUMNS = ("problem", "nonzeros", "forward s", "backward s", "peak MB", "bytes/nonzero")


def main(arguments: list[str] | None = None) -> None:
    """Measure every size and fit the growth."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=list(GROWING), default=list(GROWING))
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inner:
        sys.stdout.buffer.write(pickle.dumps(_measure(*pickle.load(sys.stdin.buffer))))
        return
    print("{:12}{:>10}{:>11}{:>12}{:>9}{:>15}".format(*COLUMNS))
    rows = []
    for name in options.problems:
        nonzeros, forward, backward, peak = row = _asked(name)
        rows.append(row)
        per = peak / nonzeros
        print(f"{name:12}{nonzeros:10.0f}{forward:11.3f}{backward:12.3f}{peak / 1e6:9.1f}{per:15.0f}")
    if len(rows) > 1:
        smaller, larger = np.array(rows[-2:])
        exponents = np.log(larger[1:] / smaller[1:]) / np.log(larger[0] / smaller[0])
        for what, exponent in zip(("forward", "backward", "memory"), exponents, strict=True):
            verdict = "linear" if exponent <= LINEAR else "MORE THAN LINEAR"
            print(f"{what} grows as nonzeros to the power {exponent:.2f}: {verdict}")


def _asked(name: str) -> tuple[float, ...]:
    case = GROWING[name]()
    peer = ConediffCore(case)
    program = peer.prepare(case.batch(1, seed=0))
    parts = program.A, program.b, program.c, program.cones, program.P
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.memory", "--inner"],
        input=pickle.dumps((parts, peer.cone_cotangent(case.cotangents(1)))),
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **search_path()},
    )
    found: tuple[float, ...] = pickle.loads(done.stdout)
    return found


def _measure(parts: tuple[Any, ...], dx: Any) -> tuple[float, ...]:
    """Return nonzeros of A and P, seconds forward and backward, and bytes of peak beyond those before."""
    program = cd.ConeProgram(*parts)
    cd.solve(cd.ConeProgram([[-1.0]], [-1.0], [2.0], {"l": 1})).derivative().vjp(dx=[1.0])  # what comes once
    before = _peak()
    start = time.perf_counter()
    solved = cd.solve(program)
    middle = time.perf_counter()
    solved.derivative().vjp(dx=dx)
    end = time.perf_counter()
    return program.A.nnz + program.P.nnz, middle - start, end - middle, _peak() - before


def _peak() -> float:
    """Return the largest memory that this process ever held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held as well
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


if __name__ == "__main__":
    main()

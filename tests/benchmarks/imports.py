"""How long ``import conediff`` takes beside ``import cvxpy``: ``python -m tests.benchmarks.imports``."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from tests.benchmarks.environments import search_path

ALLOWED = 0.05  # seconds beyond cvxpy's
PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def main(arguments: list[str] | None = None) -> None:
    """Import both in fresh interpreters, in turns, and compare medians."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.imports", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args(arguments).repeats
    times: dict[str, list[float]] = {"conediff": [], "cvxpy": []}
    for turn in range(repeats + 1):
        for module, found in times.items():
            seconds = import_time(module)
            if turn:  # the first fills the disk's cache
                found.append(seconds)
    medians = {module: statistics.median(found) for module, found in times.items()}
    reached = medians["conediff"] <= medians["cvxpy"] + ALLOWED
    for module, seconds in medians.items():
        print(f"import {module}: {1e3 * seconds:.0f} ms")
    print(f"target, cvxpy + {1e3 * ALLOWED:.0f} ms: {'reached' if reached else 'MISSED'}")


def import_time(module: str) -> float:
    """Return the seconds that importing a module takes in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **search_path()},
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()

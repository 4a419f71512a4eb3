"""Run the suite against every installed peer: ``python -m tests.benchmarks.compare``.

One process for each library; they take turns, and only one works at a time. In each round every library of an
environment solves the same problems, so that what the machine does besides meets all of them alike, and
ratios are taken round by round. No time counts before the answer has been checked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import environments
from tests.benchmarks.peers import WARM, supports
from tests.benchmarks.problems import ALL, BATCHED
from tests.benchmarks.reference import WRONG, Reference
from tests.benchmarks.report import report
from tests.benchmarks.worker import STEPS, Worker

PEERS = ("cvxpylayers", "moreau", "qpth", "diffcp")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = _parser().parse_args(arguments)
    teams = _teams(options)
    results: dict[str, Any] = {
        "command": "python -m tests.benchmarks.compare " + " ".join(arguments or sys.argv[1:]),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor(),
            "python": platform.python_version(),
        },
        "threads": options.threads,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "versions": {name: team[0].ask("versions") for name, team in teams.items()},
        "problems": {},
        "records": [],
    }
    try:
        for name in options.problems:
            _problem(name, teams, options, results)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))
    finally:
        for team in teams.values():
            for worker in team:
                worker.close()
    print(report(results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compare", description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=list(ALL), default=list(ALL), metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32, 512])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--modes", nargs="+", choices=("cold", "training"), default=["cold", "training"])
    parser.add_argument("--repeats", type=int, default=7, help="rounds of measurement")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds after which no new round begins")
    parser.add_argument("--check", type=int, default=512, help="elements of each batch to check, the first")
    parser.add_argument("--quick", action="store_true", help="two rounds, at most five seconds")
    parser.add_argument("--threads", type=int, help="processors that every library may use")
    parser.add_argument("--cache", type=Path, default=environments.CACHE, help="where environments are kept")
    parser.add_argument("--json", type=Path)
    return parser


def _teams(options: argparse.Namespace) -> dict[str, list[Worker]]:
    """Start the workers: an environment's first is conediff, on its own layer or on matrices."""
    path = environments.search_path()
    members = {
        "current": [peer for peer in options.peers if peer == "cvxpylayers" and environments.installed(peer)],
        "core": [peer for peer in options.peers if peer == "diffcp" and environments.installed(peer)],
    }
    pythons = {"current": sys.executable, "core": sys.executable}
    if wanted := [peer for peer in options.peers if peer in environments.PINNED]:
        pythons["pinned"], there = environments.prepared(options.cache)
        members["pinned"] = [peer for peer in wanted if peer in there]
    for peer in options.peers:
        if not any(peer in team for team in members.values()):
            print(f"{peer} is not installed, and left out", file=sys.stderr)
    return {
        name: [
            Worker(pythons[name], peer, path, options.threads)
            for peer in ("conediff-core" if name == "core" else "conediff", *team)
        ]
        for name, team in members.items()
        if team or name == "current" or not options.peers
    }


def _problem(
    name: str, teams: dict[str, list[Worker]], options: argparse.Namespace, results: dict[str, Any]
) -> None:
    """Check and measure one problem, everywhere; the layers on batches, the matrices one by one."""
    batched = name in BATCHED
    sizes = options.batch if batched else [1]
    case = ALL[name]()
    cold = Reference.of(case, case.batch(min(max(sizes), options.check), seed=0))
    warm = (
        Reference.of(case, case.path(min(max(sizes), options.check, 32), 0, STEPS)[-1]) if batched else cold
    )
    results["problems"][name] = {
        "confirmed": cold.confirmed,
        "agreement": cold.agreement,
        "differences": cold.differences.tolist(),
    }
    for size in sizes:
        for mode in options.modes if batched else ["cold"]:
            for environment, team in teams.items():
                if batched == (environment == "core"):
                    continue
                able = [w for w in team if supports(w.peer, name) and (mode == "cold" or w.peer in WARM)]
                if len(able) == 1 and options.peers:
                    continue
                reference = cold if mode == "cold" else warm
                records = [_checked(worker, name, size, mode, reference, environment) for worker in able]
                _measured(able, records, options)
                results["records"] += records


def _checked(
    worker: Worker, name: str, size: int, mode: str, reference: Reference, environment: str
) -> dict[str, Any]:
    """Ask for an answer at default settings, and compare it."""
    record: dict[str, Any] = {"problem": name, "batch": size, "mode": mode, "peer": worker.peer}
    record |= {"environment": environment, "forward": [], "backward": [], "total": []}
    try:
        record["stating"] = worker.ask("state", name)
        values, gradients = worker.ask("answer", name, size, mode, 0)
    except RuntimeError as error:
        print(f"{worker.peer} failed on {name}, B = {size}: {error}", file=sys.stderr)
        return record | {"failed": str(error), "wrong": True}
    known = len(reference.values)
    value, gradient = reference.errors(
        tuple(part[:known] for part in values), tuple(part[:known] for part in gradients)
    )
    wrong = not (value < WRONG and gradient < WRONG)
    return record | {"value_error": value, "gradient_error": gradient, "wrong": wrong}


def _measured(team: list[Worker], records: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Let the libraries take turns."""
    start = time.perf_counter()
    repeats, budget = (2, 5.0) if options.quick else (options.repeats, options.budget)
    for turn in range(repeats):
        for worker, record in zip(team, records, strict=True):
            if "failed" in record:
                continue
            where = record["problem"], record["batch"], record["mode"]
            times = worker.ask("measure", *where, 1000 * (turn + 1), 20, 0.3)
            for part, seconds in zip(("forward", "backward", "total"), times, strict=True):
                record[part].append(seconds)
        if time.perf_counter() - start > budget:
            return


if __name__ == "__main__":
    main()

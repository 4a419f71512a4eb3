"""What the measurements say: a table of ratios, and the targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.problems import BATCHED, LARGE

Record = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A bound on ratios: at least so much in the geometric mean, and on every problem."""

    peer: str
    mode: str
    batch: int | None
    part: str
    mean: float
    each: float = 0.0
    problems: tuple[str, ...] = tuple(BATCHED)


TARGETS = [
    Target("cvxpylayers", "cold", 32, "total", 15, 4),
    Target("cvxpylayers", "cold", 512, "total", 30, 4),
    Target("moreau", "cold", 32, "total", 1.5, 0.8),
    Target("moreau", "cold", 512, "total", 2, 0.8),
    Target("moreau", "training", None, "total", 4),
    Target("moreau", "cold", 1, "total", 1),
    Target("cvxpylayers", "cold", 1, "total", 3),
    Target("diffcp", "cold", 1, "backward", 50, problems=tuple(LARGE)),
]
GRADIENT_TARGET = 1e-7


@dataclass(frozen=True)
class Pair:
    """A peer's record beside conediff's of the same rounds."""

    ours: Record
    theirs: Record

    def ratios(self, part: str) -> np.ndarray:
        """Return peer's time by conediff's, round by round."""
        rounds = min(len(self.ours[part]), len(self.theirs[part]))
        return np.array(self.theirs[part][:rounds]) / np.array(self.ours[part][:rounds])

    @property
    def sound(self) -> bool:
        """Whether both answers were right, so that the times may be compared."""
        return not self.ours["wrong"] and not self.theirs["wrong"]


def pairs(records: Iterable[Record]) -> list[Pair]:
    """Put each peer's record beside conediff's."""
    records = list(records)
    ours = {_key(record): record for record in records if record["peer"].startswith("conediff")}
    return [
        Pair(ours[_key(record)], record) for record in records if not record["peer"].startswith("conediff")
    ]


def _key(record: Record) -> tuple[Any, ...]:
    return record["problem"], record["batch"], record["mode"], record["environment"]


def report(results: dict[str, Any]) -> str:
    """Return the table, the targets and what took part, as text."""
    found = pairs(results["records"])
    return "\n\n".join(
        [_head(results), _table(found), targets(found), _accuracy(results["records"]), _wrong(results)]
    )


def _head(results: dict[str, Any]) -> str:
    lines = [
        results["command"],
        f"{results['machine']['cores']} cores, threads {results['threads'] or 'all'}",
    ]
    for environment, versions in results["versions"].items():
        lines.append(
            f"{environment}: " + ", ".join(f"{name} {version}" for name, version in versions.items())
        )
    return "\n".join(lines)


def _table(found: list[Pair]) -> str:
    lines = [
        "Milliseconds forward / backward, and the peer's time by conediff's: median [quartiles].",
        f"{'problem':17}{'B':>5} {'mode':9}{'peer':12}{'conediff':>18}{'peer':>18}"
        f"{'forward':>9}{'backward':>10} both",
    ]
    for pair in found:
        record = pair.theirs
        head = f"{record['problem']:17}{record['batch']:5} {record['mode']:9}{record['peer']:12}"
        if not pair.ratios("total").size:
            lines.append(
                f"{head}  failed: {' | '.join(r['peer'] for r in (pair.ours, pair.theirs) if 'failed' in r)}"
            )
            continue
        middle = {part: np.median(pair.ratios(part)) for part in ("forward", "backward")}
        low, median, high = np.percentile(pair.ratios("total"), [25, 50, 75])
        lines.append(
            f"{head}{_times(pair.ours):>18}{_times(record):>18}{middle['forward']:9.2f}{middle['backward']:10.2f}"
            f" {median:.2f} [{low:.2f} {high:.2f}]{_mark(pair)}"
        )
    return "\n".join(lines)


def _times(record: Record) -> str:
    forward, backward = (1e3 * np.median(record[part]) for part in ("forward", "backward"))
    return f"{forward:.2f} / {backward:.2f}"


def _mark(pair: Pair) -> str:
    names = [record["peer"] for record in (pair.ours, pair.theirs) if record["wrong"]]
    return f"  WRONG: {', '.join(names)}" if names else ""


def targets(found: list[Pair]) -> str:
    """Return what became of each target."""
    lines = ["Targets, on geometric means over problems that both answered to one percent:"]
    for target in TARGETS:
        chosen = [
            pair
            for pair in found
            if pair.theirs["peer"] == target.peer
            and pair.theirs["mode"] == target.mode
            and target.batch in (None, pair.theirs["batch"])
            and pair.theirs["problem"] in target.problems
        ]
        ratios = {
            (pair.theirs["problem"], pair.theirs["batch"]): float(np.median(pair.ratios(target.part)))
            for pair in chosen
            if pair.sound and pair.ratios(target.part).size
        }
        size = f"B = {target.batch}" if target.batch else "any B"
        what = f"{target.peer}, {target.mode}, {size}, {target.part}"
        if not ratios:
            lines.append(f"  {what}: not measured")
            continue
        mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
        below = [f"{name} {ratio:.2f}" for (name, _), ratio in ratios.items() if ratio < target.each]
        ours_wrong = any(pair.ours["wrong"] for pair in chosen)
        verdict = "reached" if mean >= target.mean and not below and not ours_wrong else "MISSED"
        note = f"; below {target.each:g}: {', '.join(below)}" if below else ""
        lines.append(f"  {what}: {mean:.2f} of {target.mean:g} over {len(ratios)}, {verdict}{note}")
    return "\n".join(lines)


def _accuracy(records: list[Record]) -> str:
    lines = [
        f"Worst relative errors at default settings, of values and of gradients (target {GRADIENT_TARGET:g}):"
    ]
    for peer in dict.fromkeys(record["peer"] for record in records):
        of_peer = [record for record in records if record["peer"] == peer and "gradient_error" in record]
        if not of_peer:
            continue
        value = max(of_peer, key=lambda record: record["value_error"])
        gradient = max(of_peer, key=lambda record: record["gradient_error"])
        lines.append(
            f"  {peer}: {value['value_error']:.1e} ({value['problem']}), "
            f"{gradient['gradient_error']:.1e} "
            f"({gradient['problem']}, B = {gradient['batch']}, {gradient['mode']})"
        )
    return "\n".join(lines)


def _wrong(results: dict[str, Any]) -> str:
    lines = [
        f"{r['problem']}, B = {r['batch']}, {r['mode']}, {r['peer']}: "
        + (
            f"failed, {r['failed'].strip().splitlines()[-1]}"
            if "failed" in r
            else f"value off by {r['value_error']:.1e}, gradient by {r['gradient_error']:.1e}"
        )
        for r in results["records"]
        if r["wrong"]
    ]
    lines += [
        f"{name}: the reference itself is not confirmed by finite differences"
        for name, problem in results["problems"].items()
        if not problem["confirmed"]
    ]
    return "Wrong answers:\n" + "\n".join(f"  {line}" for line in lines or ["none"])

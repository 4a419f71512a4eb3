"""Draw what was measured: ``python -m tests.benchmarks.plots results.json --out docs/_static``.

Time against batch size, one figure for each mode, forward and backward apart; and time against problem size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.problems import BATCHED, GROWING

matplotlib.use("Agg")

STYLES = {
    "conediff": ("tab:blue", "o"),
    "conediff-core": ("tab:blue", "o"),
    "cvxpylayers": ("tab:orange", "s"),
    "diffcp": ("tab:orange", "s"),
    "moreau": ("tab:green", "^"),
    "qpth": ("tab:red", "v"),
}
PARTS = {"forward": "-", "backward": "--"}
Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Draw every figure for which the results have data."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one run, or of several")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args(arguments)
    results = (json.loads(path.read_text())["records"] for path in options.results)
    records = [record for found in results for record in found if record["total"]]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(records).items():
        figure.savefig(options.out / f"{name}.svg", bbox_inches="tight")
        print(options.out / f"{name}.svg")


def figures(records: list[Record]) -> dict[str, Figure]:
    """Return the figures by name."""
    found = {}
    for mode, said in (("cold", "new data in every call"), ("training", "a training loop with warm starts")):
        chosen = [r for r in records if r["mode"] == mode and r["problem"] in BATCHED]
        if chosen:
            found[f"batch-{mode}"] = _against_batch(chosen, said)
    if growing := [r for r in records if r["problem"] in GROWING]:
        found["size"] = _against_size(growing)
    return found


def _against_batch(records: list[Record], title: str) -> Figure:
    problems = list(dict.fromkeys(r["problem"] for r in records))
    columns = min(3, len(problems))  # more are too small to read in the column of a page
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, problem in zip(axes, problems, strict=False):
        _curves(ax, [r for r in records if r["problem"] == problem], lambda r: r["batch"])
        ax.set(title=problem, xlabel="batch size", ylabel="milliseconds")
    for ax in axes[len(problems) :]:
        ax.set_visible(False)
    figure.suptitle(f"{title[0].upper()}{title[1:]}: forward (solid) and backward (dashed)")
    _legend(figure, axes)
    return figure


def _against_size(records: list[Record]) -> Figure:
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    ax = figure.subplots()
    _curves(ax, records, lambda r: float(r["problem"].partition("-")[2]))
    ax.set(
        title="Forward (solid), backward (dashed), wrong (hollow)", xlabel="variables", ylabel="milliseconds"
    )
    _legend(figure, [ax])
    return figure


def _curves(ax: Axes, records: list[Record], position: Any) -> None:
    """Medians with quartiles; hollow where the answer was wrong."""
    series: dict[str, list[Record]] = {}
    for record in records:
        # conediff runs in every environment; one curve is enough
        if record["environment"] == "current" or record["peer"] != "conediff" or record["mode"] == "training":
            series.setdefault(record["peer"], []).append(record)
    for peer, found in series.items():
        color, marker = STYLES[peer]
        found = sorted(found, key=position)
        x = [position(record) for record in found]
        for part, line in PARTS.items():
            low, middle, high = np.array([np.percentile(r[part], [25, 50, 75]) for r in found]).T * 1e3
            label = peer if part == "forward" else None
            ax.plot(x, middle, line, color=color, label=label, linewidth=1.2)
            ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            for record, a, b in zip(found, x, middle, strict=True):
                face = "white" if record["wrong"] else color
                ax.plot(a, b, marker, color=color, markerfacecolor=face, markersize=4)
    ax.set(xscale="log", yscale="log")
    ax.grid(True, alpha=0.3)


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    handles = {}
    for ax in axes:
        handles.update({label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)})
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


if __name__ == "__main__":
    main()

"""The README's picture of speed: ``python docs/figures/speed.py [results.json [picture.png]]``.

``python -m tests.benchmarks.compare --json results.json`` writes the results. The picture shows batches of 32
with new data in every call, forward and backward together. Needs the ``demo`` extra.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.benchmarks.report import pairs  # noqa: E402

BATCH = 32
PEERS = {
    "cvxpylayers": ("cvxpylayers, diffcp", "#c05621", "s"),
    "moreau": ("cvxpylayers, Moreau", "#2f855a", "^"),
}


def ratios(results):
    """Return for each problem and peer: time / conediff's time, and whether both answers were right."""
    chosen = [r for r in results["records"] if r["mode"] == "cold" and r["batch"] == BATCH]
    found = {name: {} for name in dict.fromkeys(r["problem"] for r in chosen)}
    for pair in pairs(chosen):
        if pair.ratios("total").size:
            ratio = float(np.median(pair.ratios("total")))
            found[pair.theirs["problem"]][pair.theirs["peer"]] = ratio, pair.sound
    return {name: of_peer for name, of_peer in found.items() if of_peer}


def draw(results, path):
    """Draw a mark for each problem and peer; right of the line, conediff is faster."""
    found = ratios(results)
    figure = Figure(figsize=(8, 3.9), facecolor="white", layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(found))[::-1]
    axes.hlines(places, 0, 1, color="0.9", transform=axes.get_yaxis_transform(), linewidth=0.8, zorder=0)
    axes.axvline(1, color="#2b6cb0", linewidth=2, label="conediff")
    for peer, (label, color, marker) in PEERS.items():
        rows = zip(places, found.values(), strict=True)
        marks = [(*of_peer[peer], place) for place, of_peer in rows if peer in of_peer]
        for sound in (True, False):
            x = [ratio for ratio, good, _ in marks if good is sound]
            y = [place for _, good, place in marks if good is sound]
            if x:
                face, said = (color, label) if sound else ("white", f"{label}: wrong gradient")
                axes.scatter(x, y, s=55, marker=marker, facecolor=face, edgecolor=color, label=said, zorder=3)
    axes.set_yticks(places, found)
    axes.set_xscale("log")
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    cores = results["machine"]["cores"]
    axes.set_xlabel(f"time of solve and gradient, divided by conediff's (batch of {BATCH}, {cores} cores)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9, columnspacing=1.2)
    figure.savefig(path, dpi=100)
    return found


if __name__ == "__main__":
    source = Path(sys.argv[1]) if sys.argv[1:] else HERE / "data" / "speed.json"
    target = Path(sys.argv[2]) if sys.argv[2:] else HERE.parent / "_static" / "speed.png"
    for problem, of_peer in draw(json.loads(source.read_text(encoding="utf-8")), target).items():
        print(problem, ", ".join(f"{peer} {ratio:.2f}" for peer, (ratio, _) in of_peer.items()))

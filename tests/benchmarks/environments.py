"""Where peers live: the running environment, and one with cvxpy 1.9.0 that is prepared on demand.

With cvxpy 1.9.3 cvxpylayers drops cones that are placed directly on variables on their way to Moreau, and the
answers are wrong; with 1.9.0 they are right. qpth declares numpy < 2 but runs with what there is.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "conediff-bench"
PINNED = {"moreau": ["cvxpylayers>=1.2", "moreau"], "qpth": ["qpth"]}  # peers of the prepared environment


def installed(peer: str) -> bool:
    """Tell whether a peer of the running environment is installed."""
    module = {"conediff-core": "conediff"}.get(peer, peer)
    return importlib.util.find_spec(module) is not None


def search_path() -> dict[str, str]:
    """Return the variable by which any interpreter finds this checkout's conediff and its adapter."""
    return {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}


def prepared(cache: Path) -> tuple[str, list[str]]:
    """Return the interpreter of the environment with cvxpy 1.9.0, and the peers that could be installed."""
    home = cache / f"python{sys.version_info.major}.{sys.version_info.minor}-cvxpy1.9.0"
    python = home / "bin" / "python"
    marker = home / "peers.txt"
    if not marker.exists():
        print(f"preparing {home} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        torch = importlib.metadata.version("torch").partition("+")[0]
        _pip(python, f"torch=={torch}", "cvxpy==1.9.0", "scs", "qdldl", "clarabel")
        marker.write_text("")
    there = marker.read_text().split()
    # What could not be installed the last time is tried again.
    missing = [peer for peer in PINNED if peer not in there]
    there += [peer for peer in missing if _added(python, peer, PINNED[peer])]
    marker.write_text(" ".join(there))
    return str(python), there


def _added(python: Path, peer: str, packages: list[str]) -> bool:
    try:
        _pip(python, *packages, *(["--no-deps"] if peer == "qpth" else ["cvxpy==1.9.0"]))
        module = "moreau.torch" if peer == "moreau" else "qpth.qp"
        subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        print(f"{peer} is left out: {error}", file=sys.stderr)
        return False
    return True


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "-q", *arguments], check=True, stdout=sys.stderr)

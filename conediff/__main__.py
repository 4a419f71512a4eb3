"""``python -m conediff``: the demo, and what is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conediff import __version__
from conediff.threads import default_threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m conediff", description="Differentiate through convex optimisation."
    )
    parser.add_argument("--version", action="version", version=f"conediff {__version__}")
    commands = parser.add_subparsers(dest="command")
    demo = commands.add_parser("demo", help="tune an elastic net on real data by gradients through its fit")
    demo.add_argument("--output", type=Path, default=Path("conediff_demo.png"), help="where the picture goes")
    demo.add_argument("--steps", type=int, default=60, help="steps of the optimiser (default: %(default)s)")
    commands.add_parser("info", help="versions and threads")
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(options.output, options.steps)
    if options.command == "info":
        return _info()
    parser.print_help()
    return 0


def _demo(output: Path, steps: int) -> int:
    try:
        from conediff.demo import main as run

        run(output, steps)
    except ModuleNotFoundError as missing:
        print(f'the demo needs {missing.name}: pip install "conediff[demo]"', file=sys.stderr)
        return 1
    return 0


def _info() -> int:
    print(f"conediff {__version__}, {default_threads()} threads")
    for package in ("numpy", "scipy", "cvxpy", "scs", "qdldl", "torch", "tensorflow", "keras"):
        try:
            print(f"{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{package} not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

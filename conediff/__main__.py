"""The command line, ``python -m conediff``: a self-test, a description of the installation, and a demo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from conediff import __version__

_ABOUT = """\
examples:
  python -m conediff check               does this installation give right answers? (about ten seconds)
  python -m conediff info                versions, threads, usable frameworks: include this in bug reports
  python -m conediff demo                tune penalties of a regression on real data; saves conediff_demo.png
  python -m conediff demo --output net.svg --steps 20 --seed 1

exit codes:
  0  success
  1  a check failed, a required package or the demo's packages are missing, or a framework cannot be used
  2  the command line is not valid
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(parser, options.output, options.steps, options.seed)
    if options.command == "info":
        return _info()
    if options.command == "check":
        from conediff.cli.check import main as check

        return 0 if check() else 1
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conediff",
        description="Differentiate through convex optimisation, from NumPy, PyTorch, Keras, JAX and MLX.",
        epilog=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"conediff {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    said = "tune penalties of a regression on real data by gradients through its fit"
    demo = commands.add_parser("demo", help=said)
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("conediff_demo.png"),
        help="file name of the picture (default: %(default)s)",
    )
    demo.add_argument(
        "--steps",
        type=_positive_integer,
        default=60,
        help="largest number of optimiser steps (default: %(default)s)",
    )
    demo.add_argument(
        "--seed",
        type=_natural_number,
        default=0,
        help="another number divides the patients in another way (default: %(default)s)",
    )
    commands.add_parser("info", help="versions, threads, BLAS, and which frameworks can be used")
    commands.add_parser("check", help="a self-test: exit code 0 if this installation gives right answers")
    return parser


def _positive_integer(text: str) -> int:
    """Return the number that an option's text states; argparse reports the error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def _natural_number(text: str) -> int:
    """Return the number that an option's text states, zero included; argparse reports the error."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def _demo(parser: argparse.ArgumentParser, output: Path, steps: int, seed: int) -> int:
    # Checked before the work is done.
    if not output.parent.is_dir():
        parser.error(f"there is no folder {output.parent} to save the picture in")
    try:
        from conediff.cli.demo import main as run
        from conediff.cli.demo import picture_formats

        if output.suffix[1:].lower() not in picture_formats():
            parser.error(f"{output} does not end in a picture format: {', '.join(picture_formats())}")
        run(output, steps, seed)
    except ModuleNotFoundError as missing:
        advice = 'pip install ".[demo]" in a checkout of conediff'
        print(f"the demo needs {missing.name}: {advice}", file=sys.stderr)
        return 1
    return 0


def _info() -> int:
    from conediff.cli.info import describe_installation

    lines, good = describe_installation()
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""``python -m conediff``: the demo, what is installed, and whether it gives right answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from conediff import __version__

_ABOUT = """\
examples:
  python -m conediff check               does this installation give right answers? (about ten seconds)
  python -m conediff info                versions, threads, usable frameworks: for reports of what went wrong
  python -m conediff demo                tune an elastic net on real data; saves conediff_demo.png
  python -m conediff demo --output net.svg --steps 20

exit codes:
  0  all is well
  1  something is wrong: a check failed, a framework cannot be used, or the demo's packages are missing
  2  the command line was not understood
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(parser, options.output, options.steps)
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
        description="Differentiate through convex optimisation, from NumPy, PyTorch and Keras.",
        epilog=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"conediff {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    demo = commands.add_parser("demo", help="tune an elastic net on real data by gradients through its fit")
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("conediff_demo.png"),
        help="where the picture goes (default: %(default)s)",
    )
    demo.add_argument(
        "--steps", type=_count, default=60, help="steps of the optimiser (default: %(default)s)"
    )
    commands.add_parser("info", help="versions, threads, BLAS, and which frameworks can be used")
    commands.add_parser("check", help="a self-test: exit code 0 if this installation gives right answers")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def _demo(parser: argparse.ArgumentParser, output: Path, steps: int) -> int:
    # Said now, not after the work is done.
    if not output.parent.is_dir():
        parser.error(f"there is no folder {output.parent} for the picture")
    try:
        from conediff.cli.demo import main as run
        from conediff.cli.demo import picture_formats

        if output.suffix[1:].lower() not in picture_formats():
            parser.error(f"{output} does not end in a format of pictures: {', '.join(picture_formats())}")
        run(output, steps)
    except ModuleNotFoundError as missing:
        print(f'the demo needs {missing.name}: pip install "conediff[demo]"', file=sys.stderr)
        return 1
    return 0


def _info() -> int:
    from conediff.cli.info import described

    lines, good = described()
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

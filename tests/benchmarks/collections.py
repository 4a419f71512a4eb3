"""Public collections of problems: solved, differentiated, and checked against SCS and Clarabel.

``python -m tests.benchmarks.collections FOLDER`` measures every file below a folder that has a reader
(Maros-Meszaros .mat, MPS, SDPA sparse, CBF), each in a process of its own. docs/collections.md explains the
columns. FOLDER may also be a file of results, which is reported again without measuring.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.benchmarks import collection_report as report
from tests.benchmarks.collection_worker import measure
from tests.benchmarks.readers.files import files_of, name_of

LIMIT = 120.0  # seconds
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"  # of the part of a page that is written


def main(arguments: list[str] | None = None) -> None:
    """Measure or read results, and print, save and write them into a page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.collections", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of problems, or a file of results")
    parser.add_argument(
        "--only", metavar="PATTERN", help="names of problems, or collection/problem, as a glob"
    )
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one problem (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write the tables into a page")
    options = parser.parse_args(arguments)
    if options.folder.is_file():
        results = json.loads(options.folder.read_text(encoding="utf-8"))
        print(report.line(report.HEAD))
        for record in results["records"]:
            print(report.line(report.row(record)))
    else:
        results = _measured(options.folder, options.only, options.limit)
    for kind, problems in report.by_kind(results["records"]).items():
        print(f"\n{report.KINDS[kind]} ({kind}):")
        for name, figure in problems:
            print(f"  {name:12} {figure}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        write_page(options.markdown, results)


def _measured(folder: Path, only: str | None, limit: float) -> dict[str, Any]:
    files = [path for path in files_of(folder) if only is None or matches(path, only)]
    if not files:
        raise SystemExit(
            f"no file below {folder} has one of the endings {report.formats()}, and the name asked for"
        )
    print(report.line(report.HEAD))
    records, load = [], os.getloadavg()[0]
    for path in files:
        records.append(measure(path, limit))
        print(report.line(report.row(records[-1])), flush=True)
    names = ("conediff", "clarabel", "scs", "numpy", "scipy")
    versions = {name: _version(name) for name in names}
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return {
        "machine": machine,
        "versions": versions,
        "load": round(load, 1),
        "limit": limit,
        "records": records,
    }


def matches(path: Path, pattern: str) -> bool:
    """Return whether a file's name, or its folder and name, match a glob; case does not matter."""
    name = name_of(path).lower()
    return any(fnmatch(each, pattern.lower()) for each in (name, f"{path.parent.name.lower()}/{name}"))


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the two marks of a page by the tables of these results."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} needs the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{report.markdown(results)}\n\n{END}{after}", encoding="utf-8")


def _version(name: str) -> str:
    if name == "conediff":
        import conediff

        return conediff.__version__
    return importlib.metadata.version(name)


if __name__ == "__main__":
    main()

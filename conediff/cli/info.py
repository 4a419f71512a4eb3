"""What is installed here: versions, threads, BLAS, and the frameworks that conediff can be used from."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

import conediff
from conediff.parallel.threads import default_threads

# What conediff cannot do without; then what its extras bring.
REQUIRED = ("numpy", "scipy", "cvxpy", "scs", "qdldl", "threadpoolctl")
OPTIONAL = ("torch", "tensorflow", "keras", "matplotlib", "scikit-learn", "tqdm")


@dataclass(frozen=True)
class Framework:
    """A framework that conediff has an adapter for.

    Parameters
    ----------
    name : str
        As people call it.
    package : str
        What has to be importable.
    adapter : str
        conediff's module for it.
    """

    name: str
    package: str
    adapter: str

    @property
    def advice(self) -> str:
        """The command that installs what is missing."""
        return f'pip install "conediff[{self.adapter.partition(".")[2]}]"'

    @property
    def installed(self) -> bool:
        """Whether the framework itself is there."""
        return find_spec(self.package) is not None

    def load(self) -> Any:
        """Import the adapter; whatever is wrong with the framework shows here."""
        # Before TensorFlow is imported, so that what it says about itself does not bury what we say.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return import_module(self.adapter)


FRAMEWORKS = (
    Framework("PyTorch", "torch", "conediff.torch"),
    Framework("Keras", "keras", "conediff.tensorflow"),
)


def package_version(package: str) -> str | None:
    """Return the version of an installed package, also of its variants such as tensorflow-cpu."""
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def described() -> tuple[list[str], bool]:
    """Describe this installation.

    Returns
    -------
    lines : list of str
        As ``python -m conediff info`` prints them.
    good : bool
        Whether all that is required is there, and every installed framework can be used.
    """
    missing = [package for package in REQUIRED if package_version(package) is None]
    lines = [
        f"conediff {conediff.__version__} in {Path(conediff.__file__).parent}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"threads: {default_threads()} (processors that this process may use)",
        *_blas(),
        "",
    ]
    for package in (*REQUIRED, *OPTIONAL):
        found = package_version(package)
        note = "MISSING: pip install " + package if package in missing else "not installed"
        lines.append(f"{package} {found or note}")
    states = [_state(framework) for framework in FRAMEWORKS]
    lines += ["", "NumPy: usable, import conediff", *(line for line, _ in states)]
    return lines, not missing and all(good for _, good in states)


def _blas() -> Iterator[str]:
    for library in threadpool_info():
        if library["user_api"] == "blas":
            name = f"{library['internal_api']} {library['version'] or ''}".strip()
            where, threads = Path(library["filepath"]).parent.name, library["num_threads"]
            yield f"BLAS: {name} in {where}, {threads} threads; held at one while conediff works"


def _state(framework: Framework) -> tuple[str, bool]:
    """Say whether a framework can be used, and how; True unless it is installed and cannot."""
    if not framework.installed:
        return f"{framework.name}: not installed; {framework.advice}", True
    try:
        adapter = framework.load()
    except Exception as error:
        return f"{framework.name}: NOT usable: {type(error).__name__}: {error}", False
    backend = f" on {adapter.keras.backend.backend()}" if framework.package == "keras" else ""
    return f"{framework.name}{backend}: usable, from {framework.adapter} import CvxpyLayer", True

"""Describes this installation: versions, threads, BLAS, and the frameworks that conediff can be used from."""

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

# Packages that conediff needs, and packages that its extras install.
REQUIRED = ("numpy", "scipy", "cvxpy", "scs", "clarabel", "qdldl", "threadpoolctl")
OPTIONAL = ("torch", "tensorflow", "keras", "jax", "mlx", "matplotlib", "scikit-learn", "tqdm")


@dataclass(frozen=True)
class Framework:
    """A framework that conediff has an adapter for.

    Parameters
    ----------
    name : str
        The framework's own spelling of its name.
    package : str
        The package whose import must succeed.
    adapter : str
        The module of conediff that adapts it.
    """

    name: str
    package: str
    adapter: str

    @property
    def advice(self) -> str:
        """The command that installs the framework."""
        return f'pip install ".[{self.adapter.partition(".")[2]}]" in a checkout of conediff'

    @property
    def installed(self) -> bool:
        """Whether the framework itself is installed."""
        return find_spec(self.package) is not None

    def load(self) -> Any:
        """Import and return the adapter; raise whatever a broken framework raises on import."""
        # Set before TensorFlow is imported: its start-up messages would bury this command's output.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return import_module(self.adapter)


FRAMEWORKS = (
    Framework("PyTorch", "torch", "conediff.torch"),
    Framework("Keras", "keras", "conediff.tensorflow"),
    Framework("JAX", "jax", "conediff.jax"),
    Framework("MLX", "mlx", "conediff.mlx"),
)


def package_version(package: str) -> str | None:
    """Return the version of a package or its variant for CPUs (tensorflow-cpu); None if not installed."""
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def describe_installation() -> tuple[list[str], bool]:
    """Describe this installation.

    Returns
    -------
    lines : list of str
        As ``python -m conediff info`` prints them.
    good : bool
        Whether all required packages are installed, and every installed framework can be imported.
    """
    missing = [package for package in REQUIRED if package_version(package) is None]
    lines = [
        f"conediff {conediff.__version__} in {Path(conediff.__file__).parent}",
        f"Python {platform.python_version()}, {platform.platform()}",
        f"threads: {default_threads()} (processors that this process may use)",
        *_describe_blas(),
        "",
    ]
    for package in (*REQUIRED, *OPTIONAL):
        found = package_version(package)
        note = "MISSING: pip install " + package if package in missing else "not installed"
        lines.append(f"{package} {found or note}")
    states = [_describe(framework) for framework in FRAMEWORKS]
    lines += ["", "NumPy: usable, import conediff", *(line for line, _ in states)]
    return lines, not missing and all(good for _, good in states)


def _describe_blas() -> Iterator[str]:
    """Yield one line per loaded BLAS library."""
    for library in threadpool_info():
        if library["user_api"] == "blas":
            name = f"{library['internal_api']} {library['version'] or ''}".strip()
            where, threads = Path(library["filepath"]).parent.name, library["num_threads"]
            yield f"BLAS: {name} in {where}, {threads} threads; limited to one while conediff works"


def _describe(framework: Framework) -> tuple[str, bool]:
    """Return a line on how a framework can be used, and False if it is installed but cannot be imported."""
    if not framework.installed:
        return f"{framework.name}: not installed; {framework.advice}", True
    try:
        adapter = framework.load()
    except Exception as error:
        return f"{framework.name}: NOT usable: {type(error).__name__}: {error}", False
    backend = f" on {adapter.keras.backend.backend()}" if framework.package == "keras" else ""
    return f"{framework.name}{backend}: usable, from {framework.adapter} import CvxpyLayer", True

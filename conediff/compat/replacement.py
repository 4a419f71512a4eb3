"""Puts conediff in diffcp's place, so that cvxpy's own derivatives run on it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

_NAME = "diffcp"
# cvxpy's module with the lists of solvers that it found when it was imported, and the lists with diffcp.
_CVXPY, _LISTS, _SOLVER = (
    "cvxpy.reductions.solvers.defines",
    ("INSTALLED_SOLVERS", "INSTALLED_CONIC_SOLVERS"),
    "DIFFCP",
)


def install() -> Installed:
    """Put conediff in diffcp's place: from now on ``import diffcp`` gives `conediff.compat`.

    cvxpy imports diffcp whenever it solves with ``requires_grad=True``, so that ``problem.solve``,
    ``problem.backward`` and ``problem.derivative`` then run on conediff; diffcp need not be installed.

    Returns
    -------
    Installed
        Usable as a context manager: ``with conediff.compat.install(): ...`` ends the replacement afterwards,
        as its method ``uninstall`` does. If neither is used, conediff stays in place.

    Notes
    -----
    The replacement holds for the whole process, all threads included. A module that imported diffcp earlier
    keeps what it has.

    Examples
    --------
    >>> import cvxpy as cp, numpy as np, conediff.compat
    >>> x, p = cp.Variable(2), cp.Parameter(2, value=np.array([1.0, -1.0]))
    >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    >>> with conediff.compat.install():
    ...     value = problem.solve(requires_grad=True)
    ...     problem.backward()
    >>> p.gradient.round(9) + 0.0
    array([1., 0.])
    """
    return Installed()


class Installed:
    """conediff in diffcp's place, until `uninstall`; a context manager. Made by `install`."""

    def __init__(self) -> None:
        from conediff import compat

        self._replaced: dict[str, ModuleType] | None = _take_modules()
        sys.modules.update({_NAME: compat, f"{_NAME}.cones": compat.cones})
        _list_in_cvxpy(True)

    def uninstall(self) -> None:
        """Put back what was there before; nothing happens the second time."""
        if self._replaced is None:
            return
        _take_modules()
        sys.modules.update(self._replaced)
        self._replaced = None
        _list_in_cvxpy(_is_importable())

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_: Any) -> None:
        self.uninstall()

    def __repr__(self) -> str:
        state = "conediff is in diffcp's place" if self._replaced is not None else "ended"
        return f"<conediff.compat.install: {state}>"


def _take_modules() -> dict[str, ModuleType]:
    """Remove diffcp and its submodules from the loaded modules, and return them by name."""
    names = [name for name in sys.modules if name.partition(".")[0] == _NAME]
    return {name: sys.modules.pop(name) for name in names}


def _is_importable() -> bool:
    """Return whether diffcp itself can be imported; None in ``sys.modules`` forbids it."""
    if _NAME in sys.modules:
        return sys.modules[_NAME] is not None
    return importlib.util.find_spec(_NAME) is not None


def _list_in_cvxpy(available: bool) -> None:
    """Add diffcp to the solvers that cvxpy found, or remove it; cvxpy finds it itself if it is not loaded."""
    defines = sys.modules.get(_CVXPY)
    if defines is None:
        return
    for name in _LISTS:
        found: list[str] = getattr(defines, name)
        if available and _SOLVER not in found:
            found.append(_SOLVER)
        elif not available and _SOLVER in found:
            found.remove(_SOLVER)

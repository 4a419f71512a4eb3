"""How to solve and differentiate: one frozen record, defaults overridden call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from conediff.derivative import METHODS
from conediff.dialects import FOREIGN, translated
from conediff.solver import SCS_SETTINGS, checked_settings

ON_FAILURE = ("raise", "nan", "zero_grad")


@dataclass(frozen=True)
class Settings:
    """Settings of a solve, ours and SCS's.

    Attributes
    ----------
    tol : float
        Relative KKT residual that refinement aims at.
    refine : bool
        Whether Newton's method finishes what SCS began; without it SCS runs to ``tol`` itself.
    method : {"auto", "direct", "lsqr", "lsmr", "dense"}
        How derivatives are computed: by the reduced system (``"direct"``), by LSQR or LSMR on the derivative
        of the embedding, or by its singular values (``"dense"``, for tests); ``"auto"`` is direct, and LSQR
        where the reduced system is singular.
    threads : int, optional
        Threads for piles and chunks; all processors by default. Results do not depend on it.
    on_failure : {"raise", "nan", "zero_grad"} or callable
        What happens where an element has no accurate solution.
    warm_start : bool or solution
        Where to begin: a solution of a program of the same structure and batch, or True for a layer's last.
    validate : bool
        Whether a layer checks its parameters' declared attributes.
    scs : mapping
        Passed through to SCS.
    """

    tol: float = 1e-10
    refine: bool = True
    method: str = "auto"
    threads: int | None = None
    on_failure: str | Callable[..., Any] = "raise"
    warm_start: Any = None
    validate: bool = True
    scs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.tol, Real) and 0 < self.tol < 1):
            raise ValueError(f"tol must lie between 0 and 1, got {self.tol!r}")
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.threads is not None and (not isinstance(self.threads, Integral) or self.threads < 1):
            raise ValueError(f"threads must be a positive integer or None, got {self.threads!r}")
        if not callable(self.on_failure) and self.on_failure not in ON_FAILURE:
            choices = ", ".join(repr(choice) for choice in ON_FAILURE)
            raise ValueError(f"on_failure must be one of {choices}, or a callable; got {self.on_failure!r}")

    def updated(self, changes: Mapping[str, Any]) -> Settings:
        """Return these settings with some replaced; what is not ours is SCS's, or diffcp's.

        Raises
        ------
        TypeError
            If a name is neither ours nor SCS's; the message lists all.
        ValueError
            If a value is out of range.
        """
        changes = translated(changes)
        ours = {f.name for f in fields(self)} - {"scs"}
        unknown = sorted(set(changes) - ours - SCS_SETTINGS - {"eps"})
        if unknown:
            known = ", ".join(sorted(ours | SCS_SETTINGS | {"eps"}))
            known += "; and those of cvxpylayers: " + ", ".join(sorted(FOREIGN))
            raise TypeError(f"unknown solver argument {unknown[0]!r}; the known ones are: {known}")
        mine = {name: value for name, value in changes.items() if name in ours}
        theirs = checked_settings({name: value for name, value in changes.items() if name not in ours})
        return replace(self, **mine, scs={**self.scs, **theirs})

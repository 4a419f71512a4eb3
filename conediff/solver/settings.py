"""How to solve and differentiate: one frozen record, defaults overridden call by call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

from conediff.errors import ConediffWarning, warn
from conediff.parallel.progress import check_tqdm
from conediff.solver.clarabel_settings import CLARABEL_SETTINGS, checked_clarabel_settings
from conediff.solver.scs_settings import SCS_SETTINGS, checked_number, checked_settings

SOLVERS = ("scs", "clarabel")
METHODS = ("auto", "direct", "lsqr", "lsmr", "dense")
ON_FAILURE = ("raise", "nan", "zero_grad")


@dataclass(frozen=True)
class Settings:
    """Settings of a solve: ours, SCS's and Clarabel's.

    Attributes
    ----------
    tol : float
        Relative KKT residual that refinement aims at.
    refine : bool
        Whether Newton's method finishes what the solver began; without it the solver runs to ``tol`` itself.
    solver : {"scs", "clarabel"}
        Which solver comes first. The other one takes the elements that it and Newton's method do not solve.
    method : {"auto", "direct", "lsqr", "lsmr", "dense"}
        How derivatives are computed: by the reduced system (``"direct"``), by LSQR or LSMR on the derivative
        of the embedding, or by its singular values (``"dense"``, for tests); ``"auto"`` is direct, and
        where the reduced system is singular the least-squares derivative of least norm.
    threads : int, optional
        Threads for piles and parts of a batch; all processors by default. Results do not depend on it.
    executor : concurrent.futures.Executor, optional
        Its workers solve batches, in parts; ``threads`` is then for each worker, and 1 by default. Results
        agree with those of threads up to ``tol``. Copies of a layer share it. Pickling or saving a layer
        drops it, with a warning.
    on_failure : {"raise", "nan", "zero_grad"} or callable
        What happens where an element has no accurate solution.
    warm_start : bool or solution
        Where to begin: a solution of a program of the same structure and batch, or True for a layer's last.
    validate : bool
        Whether a layer checks its parameters' declared attributes.
    time_limit_secs : float, optional
        Seconds for a whole call, all stages of the solve schedule and all elements together; None or 0 is no
        limit. It is checked between runs of the solvers, within them, and between Newton steps, so one long
        factorisation may exceed it.
    progress : bool
        Whether solves and derivatives show a progress bar (tqdm), which advances with each part of a large
        batch.
    scs, clarabel : mapping
        Passed through to SCS and Clarabel.
    deadline : float
        ``time.time`` at which the time limit ends, inf without one; set by ``begun``. Not a user's setting.
    """

    tol: float = 1e-10
    refine: bool = True
    solver: str = "scs"
    method: str = "auto"
    threads: int | None = None
    executor: Executor | None = None
    on_failure: str | Callable[..., Any] = "raise"
    warm_start: Any = None
    validate: bool = True
    time_limit_secs: float | None = None
    progress: bool = False
    scs: Mapping[str, Any] = field(default_factory=dict)
    clarabel: Mapping[str, Any] = field(default_factory=dict)
    deadline: float = math.inf

    def __post_init__(self) -> None:
        if not (isinstance(self.tol, Real) and 0 < self.tol < 1):
            raise ValueError(f"tol must lie between 0 and 1, got {self.tol!r}")
        for name in ("refine", "validate", "progress"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.progress:
            check_tqdm()
        if self.solver not in SOLVERS:
            raise ValueError(
                f"solver must be one of {', '.join(map(repr, SOLVERS))}, got {self.solver!r:.80}"
            )
        if self.time_limit_secs is not None and self.time_limit_secs != 0:
            checked_number("time_limit_secs", self.time_limit_secs, 0, math.inf, float)
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.threads is not None and (not isinstance(self.threads, Integral) or self.threads < 1):
            raise ValueError(f"threads must be a positive integer or None, got {self.threads!r}")
        if self.executor is not None and not isinstance(self.executor, Executor):
            raise TypeError(
                "executor must be a concurrent.futures.Executor, such as a ProcessPoolExecutor or dask's "
                f"client.get_executor(), got {self.executor!r}"
            )
        if not callable(self.on_failure) and self.on_failure not in ON_FAILURE:
            choices = ", ".join(repr(choice) for choice in ON_FAILURE)
            raise ValueError(f"on_failure must be one of {choices}, or a callable; got {self.on_failure!r}")

    def __deepcopy__(self, memo: dict[int, Any]) -> Settings:
        """Copy all but the executor: there is one of it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "executor"}
        return Settings(executor=self.executor, **deepcopy(values, memo))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the executor."""
        return without_executor(self.__dict__)

    def begun(self) -> Settings:
        """Return settings whose time limit runs from now, unless it runs already."""
        if not self.time_limit_secs or self.deadline < math.inf:
            return self
        return replace(self, deadline=time.time() + self.time_limit_secs)

    def updated(self, changes: Mapping[str, Any], translated: Collection[str] = ()) -> Settings:
        """Return these settings with some replaced; names that are not conediff's are the solvers'.

        Parameters
        ----------
        changes : mapping
        translated : collection of str
            Further names that the caller accepts and has replaced by ours; listed in the error message.

        Raises
        ------
        TypeError
            If a name is neither ours nor a solver's; the message lists all. ``max_iter`` is Clarabel's, and
            taken for a misspelt ``max_iters`` where Clarabel does not come first.
        ValueError
            If a value is out of range.
        """
        ours = {f.name for f in fields(self)} - {"scs", "clarabel", "deadline"}
        names = ours | SCS_SETTINGS | CLARABEL_SETTINGS | {"eps"}
        if changes.get("solver", self.solver) != "clarabel":
            names -= {"max_iter"}
        unknown = sorted(set(changes) - names, key=str)
        if unknown:
            near = get_close_matches(str(unknown[0]), names, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ";"
            known = ", ".join(sorted(names))
            if translated:
                known += f"; and those of cvxpylayers: {', '.join(sorted(translated))}"
            raise TypeError(f"unknown solver argument {unknown[0]!r}{guess} the known ones are: {known}")
        mine = {name: value for name, value in changes.items() if name in ours}
        of_clarabel = checked_clarabel_settings(
            {name: value for name, value in changes.items() if name in CLARABEL_SETTINGS}
        )
        of_scs = checked_settings(
            {name: value for name, value in changes.items() if name not in ours | CLARABEL_SETTINGS}
        )
        scs, clarabel = {**self.scs, **of_scs}, {**self.clarabel, **of_clarabel}
        return replace(self, **mine, scs=scs, clarabel=clarabel)


def without_executor(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments to be pickled or saved; an executor belongs to this process, and stays behind.

    Warns
    -----
    ConediffWarning
        If there is one.
    """
    if arguments.get("executor") is not None:
        warn(
            "the executor stays behind when a layer is pickled or saved: what is loaded solves in its own "
            "process, until it is called with solver_args={'executor': ...}",
            ConediffWarning,
        )
    return {name: value for name, value in arguments.items() if name != "executor"}

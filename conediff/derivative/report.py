"""What a derivative has to tell the user; collected by the parts of a stack, said once for all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from conediff.errors import AccuracyWarning, DegeneracyWarning, warn
from conediff.kkt.least_squares import LinearSolution

NOT_UNIQUE = "the linear system is singular: the solution, or its dual, is not unique"
KINKED = "strict complementarity fails: an active constraint with a zero multiplier"


@dataclass
class Report:
    """What happened in one call of a derivative, by positions in the part or in the stack.

    Attributes
    ----------
    degenerate : dict of str to list of int arrays
        For each reason, the programs at which the solution map is not differentiable.
    inaccurate : list of (int array, float, str)
        Programs whose answer is inaccurate, the largest relative residual, and the reason.
    uncertain : list of (int array, float)
        Programs whose solution may be inaccurate, and the largest estimate of its relative error.
    least_squares : dict of int to LinearSolution
        Programs whose answer came from M.
    """

    degenerate: dict[str, list[NDArray[np.intp]]] = field(default_factory=dict)
    inaccurate: list[tuple[NDArray[np.intp], float, str]] = field(default_factory=list)
    uncertain: list[tuple[NDArray[np.intp], float]] = field(default_factory=list)
    least_squares: dict[int, LinearSolution] = field(default_factory=dict)

    def add_degenerate(self, index: NDArray[np.intp], reason: str) -> None:
        """Note programs, if there are any, at which the solution map is not differentiable."""
        if index.size:
            self.degenerate.setdefault(reason, []).append(index)

    def add_inaccurate(self, index: NDArray[np.intp], residual: float, reason: str) -> None:
        """Note programs whose answer is inaccurate."""
        self.inaccurate.append((index, residual, reason))

    def add_uncertain(self, index: NDArray[np.intp], error: NDArray[np.float64]) -> None:
        """Note programs, if there are any, whose solution may be inaccurate; ``error`` is that of all."""
        if index.size:
            self.uncertain.append((index, float(error[index].max())))

    @classmethod
    def joined(cls, reports: Iterable[Report], starts: Iterable[int]) -> Report:
        """Join the reports of the parts of a stack that begin at these positions."""
        joined = cls()
        for report, start in zip(reports, starts, strict=True):
            for reason, indices in report.degenerate.items():
                joined.degenerate.setdefault(reason, []).extend(index + start for index in indices)
            joined.inaccurate += [
                (index + start, residual, reason) for index, residual, reason in report.inaccurate
            ]
            joined.uncertain += [(index + start, error) for index, error in report.uncertain]
            joined.least_squares |= {k + start: one for k, one in report.least_squares.items()}
        return joined

    def warn_inaccurate(self, numbers: NDArray[np.intp]) -> None:
        """Warn of inaccurate answers, with the largest residual and its reason.

        Parameters
        ----------
        numbers : int array, shape (B,)
            The number of each program in the user's batch, in which some may have no solution.
        """
        if self.uncertain:
            index = numbers[np.sort(np.concatenate([index for index, _ in self.uncertain]))]
            worst = max(error for _, error in self.uncertain)
            warn(
                f"the solution of {_listed(index)}, and so its derivative, may be inaccurate: the linear "
                "system is so nearly singular that the small residual allows a relative error of "
                f"{worst:.1e}; see .diagnostics.condition of the solution, or scale the problem",
                AccuracyWarning,
            )
        if not self.inaccurate:
            return
        index = numbers[np.sort(np.concatenate([index for index, _, _ in self.inaccurate]))]
        _, residual, reason = max(self.inaccurate, key=lambda one: one[1])
        warn(
            f"the derivative of {_listed(index)} is inaccurate: relative residual {residual:.1e} ({reason}); "
            "see .diagnostics of the solution, scale the problem, or, if it is small, choose method='dense'",
            AccuracyWarning,
        )

    def warn_degenerate(self, told: set[str]) -> None:
        """Warn where the solution map is not differentiable, once for each reason.

        The text is the same for all elements and calls, so that Python's own filter, once per line, applies;
        `Diagnostics.degenerate` has the elements.

        Parameters
        ----------
        told : set of str
            Reasons that the user has been told; new ones are added. One that a filter turned into an error is
            not, so that it is raised again.
        """
        for reason in self.degenerate:
            if reason not in told:
                warn(
                    f"the solution map is not differentiable at some elements ({reason}); "
                    "the least-squares derivative of least norm is returned; see .diagnostics.degenerate of "
                    "the solution, and 'Where there is no derivative' in the guide",
                    DegeneracyWarning,
                )
                told.add(reason)


def _listed(indices: NDArray[np.intp]) -> str:
    shown = ", ".join(str(i) for i in indices[:5]) + (", ..." if indices.size > 5 else "")
    return f"element {shown}" if indices.size == 1 else f"elements {shown}"

"""What every call must keep to: an answer or an error of the library's own, in time, and in silence."""

import contextlib
import faulthandler
import math
import signal
import warnings
from pathlib import Path

import numpy as np

import conediff as cd

PACKAGES = ("conediff", "conediff_torch", "conediff_tensorflow")
# Seconds after which a call counts as hanging, and after which the interpreter is ended if it cannot be
# interrupted.
PATIENCE, LAST_RESORT = 60, 240
# SCS prints the first when it gives up, Clarabel the second when LAPACK fails it.
SCS_SAYS = "ERROR: could not determine problem status.\n"
CLARABEL_SAYS = "Eigval error"


class Refused(Exception):
    """The library refused the input, as it may."""


@contextlib.contextmanager
def watched(capfd):
    """Fail on another exception, another warning, output, or a hang; raise Refused for an error of ours."""
    faulthandler.dump_traceback_later(LAST_RESORT, exit=True)
    old = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(PATIENCE)
    capfd.readouterr()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield caught
            except (cd.ConediffError, ValueError, TypeError, NotImplementedError) as error:
                assert _is_ours(error), f"an error of another package came through: {error!r}"
                assert len(str(error)) > 15, f"the message says nothing: {error!r}"
                raise Refused from error
            finally:
                foreign = [
                    f"{w.message} ({Path(w.filename).name}:{w.lineno})"
                    for w in caught
                    if not issubclass(w.category, cd.ConediffWarning)
                ]
                assert not foreign, foreign
                printed = capfd.readouterr()
                assert not printed.out.replace(SCS_SAYS, ""), printed
                assert not printed.err or CLARABEL_SAYS in printed.err, printed
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        faulthandler.cancel_dump_traceback_later()


def _hangs(*_):
    raise AssertionError(f"no answer in {PATIENCE} s")


def _is_ours(error):
    """Whether the error was raised by the library's own code, not by what that called."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return not {*PACKAGES}.isdisjoint(Path(trace.tb_frame.f_code.co_filename).parts)


def outside(cones, s, dual=False):
    """How far s is outside the product of cones (or of their duals), relative to its size.

    Written without the library's cones. Where an inequality is steep, a point counts as inside that is inside
    once it is moved by 1e-7 of the size towards the interior.
    """
    worst, at, size = [0.0], 0, max(1e-12, abs(s).max(initial=0))
    e = 1e-7 * size

    def take(count):
        nonlocal at
        at += count
        return s[at - count : at]

    zero = take(cones.get("z", 0))
    worst += [] if dual else list(abs(zero))
    worst += list(-take(cones.get("l", 0)))
    lower, upper = (np.array(cones.get(key) or [], float) for key in ("bl", "bu"))
    if lower.size:
        t, *rest = take(1 + lower.size)
        worst.append(_outside_box(t, np.array(rest), lower, upper, dual))
    for size in cones.get("q") or []:
        t, *rest = take(size)
        worst.append(np.linalg.norm(rest) - t)
    for key, width in (("s", 1), ("cs", 2)):
        for order in cones.get(key) or []:
            below = order * (order - 1) // 2
            worst.append(-_least(order, take(order + width * below), width))
    for key in ("ep", "ed"):
        for _ in range(cones.get(key, 0)):
            polar = dual == (key == "ep")
            x, y, z = take(3)
            worst.append(_outside_exponential(x - e, y if polar else y + e, z + e, polar))
    for exponent in cones.get("p") or []:
        x, y, z = take(3) + np.array([e, e, 0.0])
        a = abs(exponent)
        if dual == (exponent > 0):
            x, y = x / a, y / (1 - a)
        worst.append(max(-x, -y, abs(z) - max(x, 0) ** a * max(y, 0) ** (1 - a)))
    assert at == len(s)
    return max(worst) / size


def _least(order, v, width):
    """Smallest eigenvalue of the matrix whose lower triangle is v, ``width`` numbers off the diagonal."""
    X, k = np.zeros((order, order), complex), 0
    for j in range(order):
        X[j, j], k = v[k], k + 1
        for i in range(j + 1, order):
            X[i, j] = (v[k] + (1j * v[k + 1] if width == 2 else 0)) / math.sqrt(2)
            X[j, i], k = X[i, j].conj(), k + width
    return np.linalg.eigvalsh(X).min(initial=math.inf)


def _outside_box(t, s, lower, upper, dual):
    low, high = lower > -1e15, upper < 1e15
    if not dual:
        gaps = [*(t * lower[low] - s[low]), *(s[high] - t * upper[high])]
        return max([-t, *gaps])
    # y's of the dual: t - max over the box of -s'x, which is infinite where an unbounded side is asked for.
    up, down = np.maximum(s, 0), np.maximum(-s, 0)
    free = max([0.0, *up[~low], *down[~high]])
    return max(free, -(t + up[low] @ lower[low] - down[high] @ upper[high]))


def _outside_exponential(x, y, z, dual):
    with np.errstate(all="ignore"):
        if dual:  # -x e^(y/x) <= e z, x < 0; or x = 0 <= y, z
            if x >= 0:
                return max(x, -y, -z)
            return max(x, -x * math.exp(min(y / x - 1, 700)) - z)
        if y <= 0:
            return max(-y, x, -z)
        return max(-y, y * math.exp(min(x / y, 700)) - z)


def check_solved(program, solution):
    """Check the conditions of optimality of a solution that is said to be solved, by dense arithmetic."""
    A, P, b, c, x, y, s = (
        *(M.toarray() for M in (program.A, program.P)),
        program.b,
        program.c,
        *_point(solution),
    )
    dual, primal = P @ x + A.T @ y + c, A @ x + s - b
    for left, terms in (
        (dual, [abs(P) @ abs(x), abs(A.T) @ abs(y), abs(c)]),
        (primal, [abs(A) @ abs(x), abs(s), abs(b)]),
    ):
        size = max(1e-12, *(part.max(initial=0) for part in terms))
        assert abs(left).max(initial=0) <= 1e-7 * size, (left, size)
    assert outside(program.cones, s) <= 1e-7, "s is not in the cone"
    assert outside(program.cones, y, True) <= 1e-7, "y is not in the dual"
    assert abs(s @ y) <= 1e-7 * max(1e-12, np.linalg.norm(s) * np.linalg.norm(y)), "s'y is not zero"


def _point(solution):
    for name, array in (("x", solution.x), ("y", solution.y), ("s", solution.s)):
        assert array.dtype == np.float64 and np.isfinite(array).all(), name
    return solution.x, solution.y, solution.s


def check_adjoint(left, right, warned):
    """Check <DS*(g), d> = <g, DS(d)>, given the two lists of products of terms."""
    terms = np.concatenate([np.ravel(a * b) for pair in (left, right) for a, b in pair])
    assert np.isfinite(terms).all()
    difference = sum((a * b).sum() for a, b in left) - sum((a * b).sum() for a, b in right)
    size = max(abs(terms).max(initial=0), 1e-200)
    assert warned or abs(difference) <= 1e-6 * size, f"{difference} of {size}"

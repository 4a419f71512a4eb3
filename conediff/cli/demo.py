"""The demo: tunes eleven penalties of a regression on real data by gradients through the fitted problem.

The data are the diabetes data of Efron et al. (2004) in scikit-learn's copy: 442 patients, ten features. They
are divided into small studies. A study fits an elastic net to 30 patients and predicts 30 others. A grid
search can tune two penalties, one l1 and one l2. With an l1 penalty for each feature there are eleven: too
many for a grid, but not for a gradient. Studies of patients who took no part in the tuning are the test.

With ``--seed`` 0 to 19 the optimiser converges every time, and the error of the test studies is below the
grid's 18 times, by 3.6 % in the mean over all 20.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from conediff.layer.layer import CvxpyLayer

Array = NDArray[np.float64]
# Range of the natural logarithms of the penalties, for the grid and for the gradient steps.
_BOUNDS = (-6.0, 2.0)
# The gradient starts with every penalty at e^-2. Below e^-6 a penalty has no effect, and its gradient is
# zero.
_START = -2.0
# Grid points per penalty: the grid search compares _GRID^2 pairs.
_GRID = 12
# Patients whom a study fits to, and as many whom it predicts.
_PATIENTS = 30
# Studies for tuning, and for the test.
_STUDIES, _TESTS = 40, 200


class Studies(NamedTuple):
    """Studies of p patients with n features: X (studies, p, n) and y (studies, p), to fit and to predict."""

    X: Array
    y: Array
    X_new: Array
    y_new: Array


def load(seed: int = 0) -> tuple[Studies, Studies, list[str]]:
    """Return the studies for tuning, those for the test, and the names of the features.

    A random half of the patients takes part in the studies for tuning, the other half in those for the test.
    Features and target are standardised by mean and deviation of the first half.
    """
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.target))
    tuning, test = order[: len(order) // 2], order[len(order) // 2 :]
    X = (data.data - data.data[tuning].mean(axis=0)) / data.data[tuning].std(axis=0)
    y = (data.target - data.target[tuning].mean()) / data.target[tuning].std()

    def draw(patients: NDArray[np.int64], count: int) -> Studies:
        drawn = np.array([rng.permutation(patients)[: 2 * _PATIENTS] for _ in range(count)])
        fit, predict = drawn[:, :_PATIENTS], drawn[:, _PATIENTS:]
        return Studies(X[fit], y[fit], X[predict], y[predict])

    return draw(tuning, _STUDIES), draw(test, _TESTS), list(data.feature_names)


def elastic_net(features: int) -> CvxpyLayer:
    """Return the layer from a study's data, the features' l1 penalties and the l2 penalty to coefficients."""
    w = cp.Variable(features, name="w")
    X, y = cp.Parameter((_PATIENTS, features), name="X"), cp.Parameter(_PATIENTS, name="y")
    l1, l2 = cp.Parameter(features, nonneg=True, name="l1"), cp.Parameter(nonneg=True, name="l2")
    loss = cp.sum_squares(X @ w - y) / _PATIENTS + l1 @ cp.abs(w) + l2 * cp.sum_squares(w)
    problem = cp.Problem(cp.Minimize(loss))
    return CvxpyLayer(problem, [X, y, l1, l2], [w], solver_args={"warm_start": True})


def errors(w: Array, studies: Studies) -> Array:
    """Return the errors of the predictions, shape (..., studies, p), of coefficients (..., studies, n)."""
    return np.asarray(np.einsum("spn,...sn->...sp", studies.X_new, w) - studies.y_new)


def squared_errors(theta: Array, layer: CvxpyLayer, studies: Studies) -> Array:
    """Return the mean squared error of every study, shape (studies,), for logarithms of the penalties."""
    (w,) = layer(studies.X, studies.y, np.exp(theta[:-1]), np.exp(theta[-1]))
    return np.asarray((errors(w, studies) ** 2).mean(axis=-1))


def grid_search(layer: CvxpyLayer, studies: Studies) -> tuple[Array, float]:
    """Fit every study with a grid of l1 and l2 penalties in one call; return the best logarithms and loss."""
    logs = np.linspace(*_BOUNDS, _GRID)
    l1, l2 = (part[..., None] for part in np.meshgrid(logs, logs, indexing="ij"))
    features = studies.X.shape[-1]
    X, y = studies.X[None, None], studies.y[None, None]  # the same for every pair of penalties
    (w,) = layer(X, y, np.exp(l1)[..., None] * np.ones(features), np.exp(l2))
    losses = (errors(w, studies) ** 2).mean(axis=(-2, -1))
    best = np.unravel_index(losses.argmin(), losses.shape)
    return np.append(np.full(features, l1[best]), l2[best]), float(losses[best])


def loss_and_gradient(theta: Array, layer: CvxpyLayer, studies: Studies) -> tuple[float, Array]:
    """Return the mean squared error of all predictions, and its gradient with respect to ``theta``.

    Parameters
    ----------
    theta : array, shape (n + 1,)
        The logarithms of the l1 penalties, then that of the l2 penalty.
    layer : CvxpyLayer
        As `elastic_net` returns it.
    studies : Studies
        The studies whose predictions count.
    """
    penalties = np.exp(theta)
    solution = layer.solve(studies.X, studies.y, penalties[:-1], penalties[-1])
    error = errors(solution.values[0], studies)
    g_w = 2 * np.einsum("sp,spn->sn", error, studies.X_new) / error.size
    _, _, g_l1, g_l2 = solution.vjp(g_w, needed=(False, False, True, True))
    assert g_l1 is not None and g_l2 is not None
    return float((error**2).mean()), np.append(g_l1, g_l2) * penalties


def tune(theta: Array, layer: CvxpyLayer, studies: Studies, steps: int = 60) -> tuple[Any, list[float]]:
    """Minimise the loss by L-BFGS-B, with a progress bar; return SciPy's result and the losses."""
    from scipy.optimize import minimize
    from tqdm import tqdm

    losses = [loss_and_gradient(theta, layer, studies)[0]]
    with tqdm(total=steps, desc=f"tuning {theta.size} penalties", unit="step") as bar:

        def report(intermediate_result: Any) -> None:
            losses.append(float(intermediate_result.fun))
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
            bar.update()

        result = minimize(
            loss_and_gradient,
            theta,
            args=(layer, studies),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * theta.size,
            callback=report,
            options={"maxiter": steps},
        )
    return result, losses


def why_it_stopped(result: Any, losses: list[float]) -> str:
    """Say in words whether the optimiser converged, and by which of its criteria."""
    low, high = _BOUNDS
    slope = np.abs(result.x - np.clip(result.x - result.jac, low, high)).max()
    measured = f"the largest slope that the bounds leave is {slope:.0e}"
    if result.status == 1:
        return f"NOT converged: stopped after {len(losses) - 1} steps, the limit; {measured}"
    if not result.success:
        return f"NOT converged: {result.message}; {measured}"
    if "GRADIENT" in str(result.message):
        return f"converged after {len(losses) - 1} steps: {measured}, below the optimiser's tolerance"
    steps = len(losses) - 1
    return f"converged after {steps} steps: the last one changed the loss by less than 1e-8; {measured}"


def picture_formats() -> list[str]:
    """Return the file name extensions that matplotlib can write."""
    from matplotlib.figure import Figure

    return sorted(Figure().canvas.get_supported_filetypes())


def draw(
    path: Path, losses: list[float], grid_loss: float, start: Array, theta: Array, names: list[str]
) -> None:
    """Save a picture of the losses per step, and of the l1 penalties of grid and gradient."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(losses, label="gradient, 11 penalties")
    left.axhline(grid_loss, color="0.5", linestyle="--", label=f"grid search, {_GRID}x{_GRID}")
    left.set(xlabel="step", ylabel="mean squared error", title="Studies for tuning")
    left.legend()
    right.bar(names, np.exp(theta[:-1]), label="gradient")
    right.axhline(np.exp(start[0]), color="0.5", linestyle="--", label="grid search")
    right.set(yscale="log", xlabel="feature", ylabel="l1 penalty", title="A penalty for each feature")
    right.set_ylim(top=10 * right.get_ylim()[1])  # room for the legend, on a logarithmic axis
    right.legend(loc="upper center", ncols=2)
    figure.savefig(path, dpi=120)


def main(output: Path = Path("conediff_demo.png"), steps: int = 60, seed: int = 0) -> dict[str, float]:
    """Run the demo; print and return the losses."""
    studies, unseen, names = load(seed)
    layer = elastic_net(len(names))
    print(
        f"diabetes data: each study fits {_PATIENTS} patients and predicts {_PATIENTS} others; {_STUDIES} "
        f"studies to tune on, {_TESTS} studies of other patients to test on"
    )
    start, grid_loss = grid_search(layer, studies)
    print(
        f"grid search over one l1 and one l2 penalty ({_GRID * _GRID * _STUDIES} fits in one call): "
        f"mean squared error {grid_loss:.4f}"
    )
    result, losses = tune(np.full_like(start, _START), layer, studies, steps)
    print(
        f"gradient through the fits, an l1 penalty for each feature: mean squared error {losses[-1]:.4f}, "
        f"{compared(losses[-1], grid_loss)} the grid's best"
    )
    print(why_it_stopped(result, losses))
    before, after = (squared_errors(theta, layer, unseen) for theta in (start, result.x))
    results = {
        "grid": grid_loss,
        "tuned": losses[-1],
        "grid_test": float(before.mean()),
        "tuned_test": float(after.mean()),
        "converged": float(result.success),
    }
    print(
        f"on the test studies: {before.mean():.4f} (grid) and {after.mean():.4f} (gradient, "
        f"{compared(after.mean(), before.mean())} the grid's); the gradient's error is the smaller one in "
        f"{np.mean(after < before):.0%} of the studies"
    )
    draw(output, losses, grid_loss, start, result.x, names)
    print(f"picture: {output}")
    return results


def compared(value: float, reference: float) -> str:
    """Say by how much a loss is below or above a reference."""
    return f"{abs(1 - value / reference):.1%} {'below' if value < reference else 'above'}"

"""The demo: tunes an elastic net on real data by gradients through the fitted problem.

The data are the diabetes data of Efron et al. (2004) in scikit-learn's copy: 442 patients, ten features. A
grid search can tune two regularisation weights. With one l1 weight per feature there are eleven weights: too
many for a grid, but not for a gradient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from conediff.layer.layer import CvxpyLayer

Array = NDArray[np.float64]
# Range of the natural logarithms of the tuned weights, for the grid and for the gradient steps.
_BOUNDS = (-9.0, 3.0)
# Grid points per weight: the grid search fits _GRID^2 models.
_GRID = 15


class Split(NamedTuple):
    """Features and targets of three parts, standardised by mean and deviation of the training part."""

    train: tuple[Array, Array]
    validation: tuple[Array, Array]
    test: tuple[Array, Array]
    names: list[str]


def load(seed: int = 0) -> Split:
    """Load the diabetes data in random order: half for training, a quarter each for validation and test."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    order = np.random.default_rng(seed).permutation(len(data.target))
    X, y = data.data[order], data.target[order]
    half, rest = len(y) // 2, 3 * len(y) // 4
    X = (X - X[:half].mean(axis=0)) / X[:half].std(axis=0)
    y = (y - y[:half].mean()) / y[:half].std()
    parts = [(X[part], y[part]) for part in (slice(0, half), slice(half, rest), slice(rest, None))]
    return Split(parts[0], parts[1], parts[2], list(data.feature_names))


def elastic_net(X: Array, y: Array) -> CvxpyLayer:
    """Return the layer that maps the features' l1 weights and the l2 weight to the fitted coefficients."""
    w = cp.Variable(X.shape[1], name="w")
    l1 = cp.Parameter(X.shape[1], nonneg=True, name="l1")
    l2 = cp.Parameter(nonneg=True, name="l2")
    loss = cp.sum_squares(X @ w - y) / len(y) + l1 @ cp.abs(w) + l2 * cp.sum_squares(w)
    return CvxpyLayer(cp.Problem(cp.Minimize(loss)), [l1, l2], [w], solver_args={"warm_start": True})


def mean_squared_error(w: Array, X: Array, y: Array) -> Any:
    """Return the mean squared error of coefficients (..., n), shape (...)."""
    return ((w @ X.T - y) ** 2).mean(axis=-1)


def grid_search(layer: CvxpyLayer, split: Split) -> tuple[Array, float]:
    """Fit a grid of l1 and l2 weights in one call; return the best log weights and their loss."""
    log_weights = np.linspace(*_BOUNDS, _GRID)
    l1, l2 = np.meshgrid(log_weights, log_weights, indexing="ij")
    features = split.train[0].shape[1]
    (w,) = layer(np.exp(l1)[..., None] * np.ones(features), np.exp(l2))
    losses = mean_squared_error(w, *split.validation)
    best = np.unravel_index(losses.argmin(), losses.shape)
    return np.append(np.full(features, l1[best]), l2[best]), float(losses[best])


def loss_and_gradient(theta: Array, layer: CvxpyLayer, split: Split) -> tuple[float, Array]:
    """Return the validation loss and its gradient with respect to the logarithms of all weights."""
    weights = np.exp(theta)
    solution = layer.solve(weights[:-1], weights[-1])
    X, y = split.validation
    (w,) = solution.values
    g1, g2 = solution.vjp(2 * X.T @ (X @ w - y) / len(y))
    assert g1 is not None and g2 is not None
    return float(mean_squared_error(w, X, y)), np.append(g1, g2) * weights


def tune(theta: Array, layer: CvxpyLayer, split: Split, steps: int = 60) -> tuple[Array, list[float]]:
    """Minimise the validation loss by L-BFGS-B, with a progress bar; return log weights and losses."""
    from scipy.optimize import minimize
    from tqdm import tqdm

    losses = [loss_and_gradient(theta, layer, split)[0]]
    with tqdm(total=steps, desc="tuning 11 weights", unit="step") as bar:

        def report(intermediate_result: Any) -> None:
            losses.append(float(intermediate_result.fun))
            bar.set_postfix(validation=f"{losses[-1]:.4f}")
            bar.update()

        result = minimize(
            loss_and_gradient,
            theta,
            args=(layer, split),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * theta.size,
            callback=report,
            options={"maxiter": steps},
        )
    return result.x, losses


def picture_formats() -> list[str]:
    """Return the file name extensions that matplotlib can write."""
    from matplotlib.figure import Figure

    return sorted(Figure().canvas.get_supported_filetypes())


def draw(
    path: Path, losses: list[float], grid_loss: float, before: Array, w: Array, names: list[str]
) -> None:
    """Save a picture of the losses per step, and of the coefficients fitted with grid and tuned weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(losses, label="gradient, 11 weights")
    left.axhline(grid_loss, color="0.5", linestyle="--", label=f"grid search, {_GRID}x{_GRID}")
    left.set(xlabel="step", ylabel="mean squared error", title="Validation loss")
    left.legend()
    places = np.arange(len(names))
    right.bar(places - 0.2, before, 0.4, color="0.6", label="grid search")
    right.bar(places + 0.2, w, 0.4, label="gradient")
    right.axhline(0, color="black", linewidth=0.8)
    right.set_xticks(places, names)
    right.set(title="Coefficients", xlabel="feature (standardised)")
    right.legend()
    figure.savefig(path, dpi=120)


def main(output: Path = Path("conediff_demo.png"), steps: int = 60) -> dict[str, float]:
    """Run the demo; print and return the losses."""
    split = load()
    layer = elastic_net(*split.train)
    print(
        f"diabetes data: {len(split.train[1])} patients to fit, {len(split.validation[1])} to tune on, "
        f"{len(split.test[1])} to test on"
    )
    start, grid_loss = grid_search(layer, split)
    print(
        f"grid search over one l1 and one l2 weight ({_GRID * _GRID} fits in one call): "
        f"validation loss {grid_loss:.4f}"
    )
    theta, losses = tune(start, layer, split, steps)
    (before,), (w,) = (layer(np.exp(t[:-1]), np.exp(t[-1])) for t in (start, theta))
    results = {
        "grid": grid_loss,
        "tuned": losses[-1],
        "grid_test": float(mean_squared_error(before, *split.test)),
        "tuned_test": float(mean_squared_error(w, *split.test)),
    }
    print(
        f"gradient through the fit, one l1 weight for every feature ({len(losses) - 1} steps): "
        f"validation loss {results['tuned']:.4f}, "
        f"{1 - results['tuned'] / grid_loss:.1%} below the grid's best"
    )
    print(
        f"on the test set, which was not used for tuning: {results['grid_test']:.4f} (grid) and "
        f"{results['tuned_test']:.4f} (gradient)"
    )
    dropped = [name for name, value in zip(split.names, w, strict=True) if abs(value) < 1e-8]
    print(f"features switched off: {', '.join(dropped) or 'none'}")
    draw(output, losses, grid_loss, before, w, split.names)
    print(f"picture: {output}")
    return results

"""conediff for MLX: ``from conediff.mlx import CvxpyLayer``."""

try:
    import mlx.core  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name not in ("mlx", "mlx.core"):  # MLX itself is there, and broken
        raise
    raise ModuleNotFoundError(
        'MLX is not installed: pip install mlx (on Linux "mlx[cpu]"), or ".[mlx]" in a checkout of conediff',
        name="mlx",
    ) from missing

from conediff_mlx import CvxpyLayer, OptLayer, functional

__all__ = ["CvxpyLayer", "OptLayer", "functional"]

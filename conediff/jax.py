"""conediff for JAX: ``from conediff.jax import CvxpyLayer``."""

try:
    import jax  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "jax":  # JAX itself is there, and broken
        raise
    raise ModuleNotFoundError(
        'JAX is not installed: pip install jax, or ".[jax]" in a checkout of conediff', name="jax"
    ) from missing

from conediff_jax import CvxpyLayer, OptLayer, functional, original_errors

__all__ = ["CvxpyLayer", "OptLayer", "functional", "original_errors"]

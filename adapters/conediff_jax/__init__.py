"""The JAX adapter of conediff: import it as ``conediff.jax``."""

from conediff_jax import functional
from conediff_jax._errors import original_errors
from conediff_jax.layer import CvxpyLayer, OptLayer

__all__ = ["CvxpyLayer", "OptLayer", "functional", "original_errors"]

"""conediff for PyTorch: ``from conediff.torch import CvxpyLayer``."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "torch":  # PyTorch itself is there, and broken
        raise
    raise ModuleNotFoundError(
        'PyTorch is not installed: pip install torch, or ".[torch]" in a checkout of conediff', name="torch"
    ) from missing

from conediff_torch import CvxpyLayer, OptLayer, functional

__all__ = ["CvxpyLayer", "OptLayer", "functional"]

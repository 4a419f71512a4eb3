"""Tensors and arrays: what goes in, in which precision, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# What NumPy does not know, and what it becomes on the way.
_WIDER = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values, without copying where it lies on the CPU in a dtype that NumPy has."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    if plain.dtype in _WIDER:
        plain = plain.to(_WIDER[plain.dtype])
    elif plain.dtype.is_floating_point and plain.dtype.itemsize == 1:
        plain = plain.float()
    array: NDArray[Any] = plain.numpy()
    return array


def to_tensor(
    array: NDArray[Any], dtype: torch.dtype, device: torch.device, shape: tuple[int, ...] | None = None
) -> Tensor:
    """Return an array as a tensor of a dtype and on a device, without copying where it can be.

    Parameters
    ----------
    array : array
    dtype : torch.dtype
        A real one stands for its complex counterpart where the array is complex.
    device : torch.device
    shape : tuple of int, optional
        Summed to, over axes along which it broadcasts to the array's.
    """
    array = np.asarray(array)
    if np.iscomplexobj(array):
        dtype = dtype.to_complex()
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy(order="C")
    tensor = torch.from_numpy(array)
    if shape is not None:
        tensor = tensor.sum_to_size(shape)
    return tensor.to(device=device, dtype=dtype)


def result_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the real dtype of the outputs, by torch's own rules of promotion.

    Tensors without dimensions yield to those with; integers become the default dtype.
    """
    full = _promoted([tensor for tensor in tensors if tensor.dim()])
    scalar = _promoted([tensor for tensor in tensors if not tensor.dim()])
    if full is None or scalar is None:
        dtype = full or scalar or torch.get_default_dtype()
    else:
        dtype = torch.result_type(torch.empty(0, dtype=full), torch.empty((), dtype=scalar))
    if dtype.is_complex:
        dtype = dtype.to_real()
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def _promoted(tensors: Sequence[Tensor]) -> torch.dtype | None:
    dtype = None
    for tensor in tensors:
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    return dtype


def result_device(tensors: Sequence[Tensor]) -> torch.device:
    """Return the device on which all tensors are.

    Raises
    ------
    RuntimeError
        If there are several; scalars on the CPU go with any, as they do in torch.
    """
    devices = {tensor.device for tensor in tensors if tensor.dim() or tensor.device.type != "cpu"}
    if len(devices) > 1:
        found = ", ".join(sorted(map(str, devices)))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found several: {found}")
    return devices.pop() if devices else torch.device("cpu")


def roundings(tensors: Sequence[Tensor]) -> list[float]:
    """Return the relative rounding of each tensor's dtype, which its array may no longer show."""
    return [
        torch.finfo(t.dtype).eps if t.dtype.is_floating_point or t.dtype.is_complex else 0.0 for t in tensors
    ]
